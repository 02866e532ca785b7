//! The cluster's certificates and token keys: authorities, identities, signing keys, kubeconfigs.
//!
//! Owns files of keys and what is signed with them. Knows nothing of who may do what: names and
//! groups in a certificate are strings here.

mod authority;
mod bundle;
mod files;
mod join;
mod key_set;
mod kubeconfig;
mod pair;
mod request;
mod subject;
mod token;

use std::path::PathBuf;

pub use authority::{Authority, Identity, Profile, Usage};
pub use bundle::Bundle;
pub use files::{read, write_private, write_public};
pub use join::{JoinToken, bootstrap_token, sign_for_token};
pub use key_set::KeySet;
pub use kubeconfig::kubeconfig;
pub use pair::pair_problem;
pub use request::{NewKey, SigningRequest, authority_hash};
pub use subject::Subject;
pub use token::{TokenError, TokenKeys, random_secret};

/// Why keys or certificates cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("{action} {path}")]
    File {
        /// `read`, `write`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A file is there but holds no usable key or certificate.
    #[error(
        "{path} holds no usable {expected}: restore it from a backup, or remove it to have a new one made"
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// A certificate cannot be made.
    #[error("make a certificate for {name}")]
    Issue {
        /// Its common name.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// The crypto library refuses a key.
    #[error("{0}")]
    Key(String),
}
