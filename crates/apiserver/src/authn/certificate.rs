//! The user a client certificate names: common name and organizations. Read once a connection; whether its time is
//! over is asked of every request.

use std::sync::Arc;

use pki::Subject;
use registry::UserInfo;
use serve::{ClientCertificate, Peer};
use sha2::{Digest, Sha256};

use crate::identity::{EXTRA_CREDENTIAL_ID, Identity};

/// What the peer's certificate is worth.
#[derive(Clone)]
pub(super) enum Shown {
    /// None was shown, or it names nobody.
    Nothing,
    /// One was shown that does not verify.
    Refused,
    /// It names this user, until then (seconds since 1970).
    User(Arc<UserInfo>, i64),
}

/// Reads the certificate of a peer.
pub(super) fn judge(peer: &Peer) -> Shown {
    let chain = match &peer.certificate {
        ClientCertificate::None => return Shown::Nothing,
        ClientCertificate::Rejected(reason) => {
            tracing::debug!(%reason, "client certificate refused");
            return Shown::Refused;
        }
        ClientCertificate::Verified(chain) => chain,
    };
    let Some((leaf, subject)) = chain.first().and_then(|leaf| Some((leaf, Subject::parse(leaf)?)))
    else {
        return Shown::Refused;
    };
    if subject.common_name.is_empty() {
        return Shown::Nothing;
    }
    let mut user = UserInfo {
        name: subject.common_name,
        groups: subject.organizations,
        ..UserInfo::default()
    };
    // A chain holds as long as all of it.
    let Some(expiry) = chain.iter().map(Subject::expiry).min().flatten() else {
        return Shown::Refused;
    };
    let digest: String = Sha256::digest(leaf).iter().map(|byte| format!("{byte:02x}")).collect();
    user.extra.insert(EXTRA_CREDENTIAL_ID.into(), vec![format!("X509SHA256={digest}")]);
    user.add_authenticated();
    Shown::User(Arc::new(user), expiry)
}
