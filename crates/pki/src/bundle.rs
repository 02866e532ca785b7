//! Key files of a cluster as one message that only holders of a secret can open, for servers that share
//! a datastore.
//!
//! The secret is stretched (PBKDF2 with HMAC-SHA256, RFC 8018) to a key for AES-256-GCM. Knows nothing of
//! where the message is kept.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::pbkdf2;
use aws_lc_rs::rand::fill;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::{PkiError, read, write_private};

/// Rounds of stretching for new messages.
const ROUNDS: NonZeroU32 = NonZeroU32::new(100_000).unwrap();
/// Rounds that are still done for a message that asks for more.
const MOST_ROUNDS: u32 = 10_000_000;
/// Binds a message to its purpose.
const PURPOSE: &[u8] = b"skiff cluster keys, version 1";

/// The texts of key files, by name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle(BTreeMap<String, String>);

#[derive(Serialize, Deserialize)]
struct Message {
    version: u32,
    rounds: u32,
    salt: String,
    sealed: String,
}

impl Bundle {
    /// The files with these names in `directory`; `None` where one of them is missing.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(directory: &Path, names: &[&str]) -> Result<Option<Self>, PkiError> {
        let mut files = BTreeMap::new();
        for name in names {
            let Some(text) = read(&directory.join(name))? else { return Ok(None) };
            files.insert((*name).to_owned(), text);
        }
        Ok(Some(Self(files)))
    }

    /// Writes the files with these names into `directory`, for their owner alone.
    ///
    /// # Errors
    /// When one is missing here, or cannot be written.
    pub fn write(&self, directory: &Path, names: &[&str]) -> Result<(), PkiError> {
        for name in names {
            let text = self.0.get(*name);
            let text =
                text.ok_or_else(|| PkiError::Key(format!("{name} is not among the keys")))?;
            write_private(&directory.join(name), text.as_bytes())?;
        }
        Ok(())
    }

    /// The message that holds the files.
    ///
    /// # Errors
    /// When the crypto library refuses.
    pub fn seal(&self, secret: &str) -> Result<Vec<u8>, PkiError> {
        let refused = |_| PkiError::Key("the keys cannot be sealed".into());
        let mut salt = [0; 16];
        fill(&mut salt).map_err(refused)?;
        let key = key(secret, &salt, ROUNDS)?;
        let mut sealed = serde_json::to_vec(self).map_err(|e| PkiError::Key(e.to_string()))?;
        let nonce =
            key.seal_in_place_append_tag(Aad::from(PURPOSE), &mut sealed).map_err(refused)?;
        let message = Message {
            version: 1,
            rounds: ROUNDS.get(),
            salt: STANDARD.encode(salt),
            sealed: STANDARD.encode([&nonce.as_ref()[..], &sealed].concat()),
        };
        serde_json::to_vec(&message).map_err(|error| PkiError::Key(error.to_string()))
    }

    /// The files that a message holds; `None` if the secret is not the one it was sealed with.
    ///
    /// # Errors
    /// When it is no such message.
    pub fn open(message: &[u8], secret: &str) -> Result<Option<Self>, PkiError> {
        let damaged = || PkiError::Key("the message with the cluster's keys is damaged".into());
        let message: Message = serde_json::from_slice(message).map_err(|_| damaged())?;
        let rounds = NonZeroU32::new(message.rounds).filter(|r| r.get() <= MOST_ROUNDS);
        let (1, Some(rounds)) = (message.version, rounds) else { return Err(damaged()) };
        let salt = STANDARD.decode(message.salt).map_err(|_| damaged())?;
        let sealed = STANDARD.decode(message.sealed).map_err(|_| damaged())?;
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let mut body = body.to_vec();
        let key = key(secret, &salt, rounds)?;
        let Ok(plain) = key.open_in_place(nonce, Aad::from(PURPOSE), &mut body) else {
            return Ok(None);
        };
        serde_json::from_slice(plain).map(Some).map_err(|_| damaged())
    }
}

fn key(secret: &str, salt: &[u8], rounds: NonZeroU32) -> Result<RandomizedNonceKey, PkiError> {
    let mut key = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, secret.as_bytes(), &mut key);
    RandomizedNonceKey::new(&AES_256_GCM, &key)
        .map_err(|_| PkiError::Key("the secret cannot be used".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_opens_what_it_sealed() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let names = ["a.key", "b.key"];
        write_private(&from.path().join("a.key"), b"A").unwrap();
        assert!(Bundle::read(from.path(), &names).unwrap().is_none());
        write_private(&from.path().join("b.key"), b"B").unwrap();
        let bundle = Bundle::read(from.path(), &names).unwrap().unwrap();
        let message = bundle.seal("secret").unwrap();
        assert!(Bundle::open(&message, "Secret").unwrap().is_none());
        let opened = Bundle::open(&message, "secret").unwrap().unwrap();
        opened.write(to.path(), &names).unwrap();
        assert!(Bundle::read(to.path(), &names).unwrap() == Some(bundle));
        assert!(opened.write(to.path(), &["c.key"]).is_err());
        for rubbish in [&b"{}"[..], b"", &message[..message.len() - 9]] {
            assert!(Bundle::open(rubbish, "secret").is_err());
        }
    }
}
