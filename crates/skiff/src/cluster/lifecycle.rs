//! What servers and nodes can be told about nodes that fall silent or go down, and how a node learns
//! that its machine goes down.

use std::time::Duration;

use apiserver::DefaultTolerationSeconds;
use clap::Args;
use kubelet::{KubeletOptions, ShutdownGrace};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Part;
use super::options::duration;

/// How a server judges nodes.
#[derive(Args, Debug, Clone)]
pub(crate) struct JudgeFlags {
    /// How long any node may be silent until it counts as lost, and kubelets are told to renew their leases
    /// accordingly [default: 10s, and 40s with more than 100 nodes]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) node_monitor_grace_period: Option<Duration>,
    /// How long pods stay on a node that says it is not ready, unless they say so themselves
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    default_not_ready_toleration_seconds: u32,
    /// How long pods stay on a node that says nothing any more, unless they say so themselves
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    default_unreachable_toleration_seconds: u32,
}

impl JudgeFlags {
    pub(super) fn tolerations(&self) -> DefaultTolerationSeconds {
        DefaultTolerationSeconds {
            not_ready: self.default_not_ready_toleration_seconds,
            unreachable: self.default_unreachable_toleration_seconds,
        }
    }
}

/// How a node ends its pods by itself.
#[derive(Args, Debug, Clone)]
pub(crate) struct EndFlags {
    /// Stop pods that others replace when no server has answered for as long as the node's lease holds, so that
    /// pods of StatefulSets may move
    #[arg(long)]
    pub(super) self_fence: bool,
    /// How long pods may take to end when the machine goes down
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = duration)]
    shutdown_grace_period: Duration,
    /// The last part of that, kept for pods that are critical to the system
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = duration)]
    shutdown_grace_period_critical_pods: Duration,
    /// Instead: how long pods of each priority and more may take, as in 0=30s,1000=10s; the lowest end first
    #[arg(long, value_name = "PRIORITY=TIME", value_delimiter = ',', value_parser = shutdown_grace)]
    shutdown_grace_period_by_pod_priority: Vec<ShutdownGrace>,
}

impl EndFlags {
    pub(super) fn shutdown_grace(&self) -> Vec<ShutdownGrace> {
        if !self.shutdown_grace_period_by_pod_priority.is_empty() {
            return self.shutdown_grace_period_by_pod_priority.clone();
        }
        let critical = self.shutdown_grace_period_critical_pods;
        KubeletOptions::shutdown_in_two(self.shutdown_grace_period, critical)
    }
}

fn shutdown_grace(text: &str) -> Result<ShutdownGrace, String> {
    let bad = || format!("{text:?} is not like 1000=10s, a priority and a time");
    let (priority, grace) = text.split_once('=').ok_or_else(bad)?;
    let priority = priority.parse().map_err(|_| bad())?;
    Ok(ShutdownGrace { priority, grace: duration(grace)? })
}

/// The signal by which a node is told that its machine goes down: that of a power failure.
pub(crate) const POWER_FAILURE: nix::sys::signal::Signal = nix::sys::signal::Signal::SIGPWR;

/// The end of the machine, as the parts of this process hear of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Departure {
    /// Cancelled when the machine goes down.
    pub(crate) begun: CancellationToken,
    /// Cancelled when the pods of further nodes on this machine have ended: until then their agents
    /// need this process.
    pub(crate) others_ended: CancellationToken,
}

impl Departure {
    /// Where there are no further nodes.
    pub(crate) fn alone() -> Self {
        let departure = Self::default();
        departure.others_ended.cancel();
        departure
    }
}

/// Cancels `going_down` when the machine goes down.
pub(super) async fn watch_power(
    going_down: CancellationToken,
    shutdown: CancellationToken,
) -> Part {
    const NAME: &str = "the watch for the end of the machine";
    match signal(SignalKind::from_raw(POWER_FAILURE as i32)) {
        Ok(mut failure) => {
            if shutdown.run_until_cancelled(failure.recv()).await.is_some() {
                going_down.cancel();
            }
        }
        Err(error) => tracing::warn!(%error, "nobody can tell the node that its machine goes down"),
    }
    shutdown.cancelled().await;
    (NAME, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_by_priority_are_read_or_refused() {
        let grace = Duration::from_secs(10);
        assert_eq!(shutdown_grace("-5=10s"), Ok(ShutdownGrace { priority: -5, grace }));
        for bad in ["10s", "x=10s", "1=", "1=ten"] {
            assert!(shutdown_grace(bad).is_err(), "{bad}");
        }
    }
}
