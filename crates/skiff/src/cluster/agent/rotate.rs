//! Keeping a node's certificates fresh while it runs: a new one is asked for when most of the old one's
//! life is over, and shown from the next handshake on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::Remote;
use pki::Identity;
use serve::tls::Certificate;
use tokio_util::sync::CancellationToken;

use super::Wanted;
use super::request::obtain;

/// The longest sleep: clocks jump.
const LOOK: Duration = Duration::from_secs(3600);
/// First and longest pause after a failure.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// One certificate of the node.
pub(super) struct Rotation {
    pub(super) wanted: Wanted,
    pub(super) directory: PathBuf,
    /// Whose rights allow to ask for it.
    pub(super) asker: kube::Client,
    /// What presents it.
    pub(super) certificate: Arc<Certificate>,
    /// What must connect anew to present it.
    pub(super) remote: Option<Remote>,
    /// What is there to begin with.
    pub(super) current: Option<Identity>,
}

/// Presents an identity from now on.
pub(super) fn present(certificate: &Certificate, identity: &Identity) -> anyhow::Result<()> {
    certificate
        .replace(identity.chain()?, identity.private_key()?)
        .context("present the new certificate")
}

impl Rotation {
    /// Renews until `shutdown`; never gives up.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.keep()).await;
    }

    async fn keep(self) {
        let name = self.wanted.name;
        let mut due = match &self.current {
            Some(identity) => identity.renew_at().unwrap_or_else(|_| jiff::Timestamp::now()),
            None => jiff::Timestamp::now(),
        };
        let mut pause = AGAIN.0;
        loop {
            let left = due.duration_since(jiff::Timestamp::now());
            if let Ok(left) = Duration::try_from(left)
                && !left.is_zero()
            {
                tokio::time::sleep(left.min(LOOK)).await;
                continue;
            }
            match self.renew().await {
                Ok(next) => {
                    tracing::info!(certificate = name, %next, "certificate renewed");
                    due = next;
                    pause = AGAIN.0;
                }
                Err(error) => {
                    if pause > Duration::from_secs(2) {
                        tracing::warn!(
                            certificate = name,
                            "the certificate is not renewed yet: {error:#}"
                        );
                    } else {
                        tracing::debug!(
                            certificate = name,
                            "the certificate is not renewed yet: {error:#}"
                        );
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(AGAIN.1);
                }
            }
        }
    }

    async fn renew(&self) -> anyhow::Result<jiff::Timestamp> {
        let identity = obtain(&self.asker, &self.wanted, &self.directory).await?;
        present(&self.certificate, &identity)?;
        if let Some(remote) = &self.remote {
            remote.reconnect();
        }
        Ok(identity.renew_at()?)
    }
}
