//! Leader election on a `coordination.k8s.io/v1` Lease, with client-go's rules.
//!
//! Knows nothing of what the leader does: it hands out a token that is cancelled when leadership
//! is lost.

use std::{future::Future, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, api::PostParams};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Which lease, who we are, and the three durations.
#[derive(Clone, Debug)]
pub struct Election {
    /// Namespace of the Lease, usually `kube-system`.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who we are; unique among the candidates.
    pub identity: String,
    /// How long others wait after the last renewal they saw. Upstream waits 15 s.
    pub lease: Duration,
    /// How long the leader goes on without a successful renewal. Upstream: 10 s.
    pub renew: Duration,
    /// Pause between attempts to get or renew. Upstream: 2 s.
    pub retry: Duration,
}

impl Election {
    /// An election in which a leader that dies is replaced within 10 s.
    pub fn new(
        namespace: impl Into<String>,
        name: impl Into<String>,
        identity: impl Into<String>,
    ) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease: Duration::from_secs(8),
            renew: Duration::from_secs(5),
            retry: Duration::from_millis(1500),
        }
    }
}

/// Takes part in an election.
pub struct LeaderElection {
    election: Election,
    api: Api<Lease>,
    /// The lease as last seen, and when we first saw it so, by our own clock.
    observed: Option<(LeaseSpec, Instant)>,
}

/// What a candidate does about the lease it sees.
#[derive(Debug, PartialEq)]
enum Move {
    /// Write this spec.
    Write(Box<LeaseSpec>),
    /// Someone else holds it.
    Wait,
}

impl LeaderElection {
    /// A candidate.
    pub fn new(client: kube::Client, election: Election) -> Self {
        let api = Api::namespaced(client, &election.namespace);
        Self { election, api, observed: None }
    }

    /// Waits for leadership, runs `lead` while it lasts, and starts over when it is lost.
    ///
    /// The token given to `lead` is cancelled on loss or shutdown; `lead` must return soon after.
    /// Returns after `shutdown`, when `lead` has returned and the lease has been released, or as
    /// soon as `lead` returns by itself.
    pub async fn run<F, Fut, T>(mut self, shutdown: CancellationToken, mut lead: F) -> Option<T>
    where
        F: FnMut(CancellationToken) -> Fut,
        Fut: Future<Output = T>,
    {
        loop {
            shutdown.run_until_cancelled(self.acquire()).await?;
            info!(lease = self.election.name, identity = self.election.identity, "leading");
            let term = shutdown.child_token();
            let work = lead(term.clone());
            futures::pin_mut!(work);
            tokio::select! {
                result = &mut work => {
                    self.release().await;
                    return Some(result);
                }
                () = self.hold() => {
                    warn!(lease = self.election.name, "leadership lost");
                    term.cancel();
                    work.await;
                }
                () = shutdown.cancelled() => {
                    let result = work.await;
                    self.release().await;
                    return Some(result);
                }
            }
        }
    }

    /// Tries until the lease is ours.
    async fn acquire(&mut self) {
        loop {
            match tokio::time::timeout(self.election.renew, self.attempt()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(error)) => {
                    debug!(lease = self.election.name, %error, "lease not acquired");
                }
            }
            tokio::time::sleep(self.election.retry.mul_f64(1.0 + rand::random::<f64>() * 0.2))
                .await;
        }
    }

    /// Renews until it has failed for the renew duration or the lease is another's.
    async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.election.retry).await;
            let left = self.election.renew.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => debug!(lease = self.election.name, %error, "lease not renewed"),
                Err(_) => {}
            }
            if renewed.elapsed() >= self.election.renew {
                return;
            }
        }
    }

    /// One attempt to get or renew the lease; whether we hold it afterwards.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let name = self.election.name.clone();
        let now = Timestamp::now();
        let Some(mut lease) = self.api.get_opt(&name).await? else {
            let Move::Write(spec) = decide(&self.election, None, true, now) else {
                return Ok(false);
            };
            let lease = Lease {
                metadata: ObjectMeta { name: Some(name), ..ObjectMeta::default() },
                spec: Some(*spec),
            };
            let created = self.api.create(&PostParams::default(), &lease).await?;
            self.observe(created.spec.unwrap_or_default());
            return Ok(true);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let stale = self.observe(spec.clone());
        match decide(&self.election, Some(&spec), stale, now) {
            Move::Wait => Ok(false),
            Move::Write(spec) => {
                lease.spec = Some(*spec);
                let written = self.api.replace(&name, &PostParams::default(), &lease).await?;
                self.observe(written.spec.unwrap_or_default());
                Ok(true)
            }
        }
    }

    /// Remembers the lease; whether it has been the same for longer than it is valid. Clocks of
    /// other machines are not trusted: only our own time since we saw it change counts.
    fn observe(&mut self, spec: LeaseSpec) -> bool {
        let valid = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(self.election.lease, Duration::from_secs);
        match &self.observed {
            Some((known, since)) if *known == spec => since.elapsed() >= valid,
            _ => {
                self.observed = Some((spec, Instant::now()));
                false
            }
        }
    }

    /// Gives the lease back so that others need not wait for it to run out. Best effort.
    async fn release(&self) {
        let free = async {
            let Some(mut lease) = self.api.get_opt(&self.election.name).await? else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.election.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            self.api.replace(&self.election.name, &PostParams::default(), &lease).await.map(drop)
        };
        let released: Result<Result<(), kube::Error>, _> =
            tokio::time::timeout(Duration::from_secs(2), free).await;
        if !matches!(released, Ok(Ok(()))) {
            debug!(lease = self.election.name, "lease not released");
        }
    }
}

/// The rule: write if nobody holds the lease, we do, or its holder let it run out (`stale`).
fn decide(election: &Election, spec: Option<&LeaseSpec>, stale: bool, now: Timestamp) -> Move {
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    let ours = holder == election.identity;
    if !(ours || holder.is_empty() || stale) {
        return Move::Wait;
    }
    let old = spec.cloned().unwrap_or_default();
    let transitions = old.lease_transitions.unwrap_or(0);
    let changes_hands = !ours && spec.is_some();
    Move::Write(Box::new(LeaseSpec {
        holder_identity: Some(election.identity.clone()),
        lease_duration_seconds: Some(
            i32::try_from(election.lease.as_secs()).unwrap_or(i32::MAX).max(1),
        ),
        acquire_time: if ours { old.acquire_time.clone() } else { Some(MicroTime(now)) },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if changes_hands { transitions + 1 } else { transitions }),
        ..old
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }
    }

    fn check(spec: Option<LeaseSpec>, stale: bool) -> Option<(String, i32)> {
        let election = Election::new("kube-system", "test", "me");
        match decide(&election, spec.as_ref(), stale, Timestamp::UNIX_EPOCH) {
            Move::Wait => None,
            Move::Write(spec) => Some((
                spec.holder_identity.unwrap_or_default(),
                spec.lease_transitions.unwrap_or_default(),
            )),
        }
    }

    #[test]
    fn a_lease_is_taken_when_free_ours_or_stale() {
        assert_eq!(check(None, false), Some(("me".into(), 0)));
        assert_eq!(check(Some(held_by("me")), false), Some(("me".into(), 3)));
        assert_eq!(check(Some(held_by("")), false), Some(("me".into(), 4)));
        assert_eq!(check(Some(held_by("other")), false), None);
        assert_eq!(check(Some(held_by("other")), true), Some(("me".into(), 4)));
    }
}
