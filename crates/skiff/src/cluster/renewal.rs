//! Certificates that the cluster's authority issues to its own parts, kept fresh while they run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use pki::{Authority, Identity, Profile};
use serve::tls::Certificate;
use tokio_util::sync::CancellationToken;

use super::Part;

/// The longest sleep: clocks jump.
const LOOK: Duration = Duration::from_secs(3600);
/// Pause after a failure, such as a full disk.
const AGAIN: Duration = Duration::from_secs(10);

/// What happens with a new certificate.
type Use = Box<dyn Fn(&Identity) -> anyhow::Result<()> + Send + Sync>;

struct Kept {
    name: &'static str,
    profile: Profile,
    renew_at: jiff::Timestamp,
    put: Use,
}

/// The identities kept.
pub(super) struct Identities {
    authority: Arc<Authority>,
    directory: PathBuf,
    /// The longest life of a certificate.
    lifetime: Duration,
    kept: Mutex<Vec<Kept>>,
}

impl Identities {
    pub(super) fn new(authority: Arc<Authority>, directory: PathBuf, lifetime: Duration) -> Self {
        Self { authority, directory, lifetime, kept: Mutex::default() }
    }

    /// Reads or issues an identity, hands it to `put`, and every one that follows it too.
    pub(super) fn keep(
        &self,
        name: &'static str,
        profile: Profile,
        put: impl Fn(&Identity) -> anyhow::Result<()> + Send + Sync + 'static,
    ) -> anyhow::Result<()> {
        let profile = Profile { lifetime: profile.lifetime.min(self.lifetime), ..profile };
        let identity = self.authority.identity(&self.directory, name, &profile)?;
        put(&identity)?;
        let renew_at = identity.renew_at()?;
        self.kept.lock().push(Kept { name, profile, renew_at, put: Box::new(put) });
        Ok(())
    }

    /// As [`Identities::keep`], for TLS.
    pub(super) fn certificate(
        &self,
        name: &'static str,
        profile: Profile,
    ) -> anyhow::Result<Arc<Certificate>> {
        let certificate = Certificate::pending();
        let presented = certificate.clone();
        self.keep(name, profile, move |identity| {
            presented
                .replace(identity.chain()?, identity.private_key()?)
                .with_context(|| format!("present the certificate {name}"))
        })?;
        Ok(certificate)
    }

    /// Renews until `shutdown`.
    pub(super) async fn run(self: Arc<Self>, shutdown: CancellationToken) -> Part {
        loop {
            let pause = match self.renew() {
                Ok(next) => {
                    let now = jiff::Timestamp::now();
                    next.duration_since(now).try_into().unwrap_or(Duration::ZERO).min(LOOK)
                }
                Err(error) => {
                    tracing::error!("a certificate cannot be renewed: {error:#}");
                    AGAIN
                }
            };
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return ("the renewal of certificates", Ok(()));
            }
        }
    }

    /// Renews what is due; when the next one will be.
    fn renew(&self) -> anyhow::Result<jiff::Timestamp> {
        let now = jiff::Timestamp::now();
        let mut next = now + LOOK;
        for kept in &mut *self.kept.lock() {
            if kept.renew_at <= now {
                let identity = self.authority.renew(&self.directory, kept.name, &kept.profile)?;
                (kept.put)(&identity)?;
                kept.renew_at = identity.renew_at()?;
                tracing::info!(certificate = kept.name, next = %kept.renew_at, "certificate renewed");
            }
            next = next.min(kept.renew_at);
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_renewed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::load_or_create(directory.path(), "ca").unwrap());
        let identities =
            Identities::new(authority, directory.path().to_owned(), Duration::from_secs(3600));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let put = seen.clone();
        let keep = move |identity: &Identity| {
            put.lock().push(identity.certificate.clone());
            Ok(())
        };
        identities.keep("one", Profile::client("one", None), keep).unwrap();
        let next = identities.renew().unwrap();
        assert_eq!(seen.lock().len(), 1);
        assert!(next > jiff::Timestamp::now());
        identities.kept.lock()[0].renew_at = jiff::Timestamp::now();
        identities.renew().unwrap();
        let seen = seen.lock();
        assert_eq!(seen.len(), 2);
        assert_ne!(seen[0], seen[1]);
    }
}
