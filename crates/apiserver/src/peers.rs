//! Which API servers there are, where several share a store: each keeps a lease that says where it is, and
//! those whose leases are kept stand in the endpoints of the `kubernetes` Service.
//!
//! Other machines' clocks are not trusted: a lease is kept as long as it changes.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use meta::Status;
use parking_lot::Mutex;
use registry::Registry;
use serde_json::{Value, json};

use crate::bootstrap::{Place, Writer};

/// How often a server renews its lease and looks at the others'.
pub(crate) const RENEW: Duration = Duration::from_secs(2);
/// How long a lease may stay as it is.
const LEASE: Duration = Duration::from_secs(8);
/// How long the lease of a server that died without a word is kept.
const FORGET: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "kube-system";
/// Marks the leases of API servers; its value says nothing.
const LABEL: &str = "skiff.dev/apiserver";

/// The leases as last seen.
#[derive(Default)]
pub(crate) struct Peers {
    seen: Mutex<HashMap<String, Seen>>,
}

struct Seen {
    renewed: Value,
    since: Instant,
    revision: String,
}

fn name(server: SocketAddr) -> String {
    let text = server.to_string();
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    format!("apiserver-{}", text.trim_start_matches('[').chars().map(word).collect::<String>())
}

fn place(name: &str) -> Place<'_> {
    Place {
        group: "coordination.k8s.io",
        version: "v1",
        resource: "leases",
        namespace: NAMESPACE,
        name,
    }
}

impl Peers {
    /// Where the servers are whose leases are kept, `own` among them, in order.
    pub(crate) fn live(&self, registry: &Registry, own: SocketAddr) -> Vec<SocketAddr> {
        let Some(row) = registry.rows().get("coordination.k8s.io", "v1", "leases") else {
            return vec![own];
        };
        let leases = registry.list(row, Some(NAMESPACE)).into_iter();
        let leases = leases
            .filter(|lease| lease.header().label(LABEL).is_some())
            .map(|lease| (lease.name().to_owned(), lease.value(row)));
        self.judge(leases, own, Instant::now())
    }

    fn judge(
        &self,
        leases: impl Iterator<Item = (String, Value)>,
        own: SocketAddr,
        now: Instant,
    ) -> Vec<SocketAddr> {
        let mut seen = self.seen.lock();
        let mut known = HashMap::new();
        let mut servers = vec![own];
        for (name, lease) in leases {
            let renewed = lease["spec"]["renewTime"].clone();
            let since = match seen.remove(&name) {
                Some(before) if before.renewed == renewed => before.since,
                _ => now,
            };
            let revision = lease["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            known.insert(name, Seen { renewed, since, revision: revision.to_owned() });
            let holder = lease["spec"]["holderIdentity"].as_str().and_then(|h| h.parse().ok());
            servers.extend(holder.filter(|_: &SocketAddr| now.duration_since(since) < LEASE));
        }
        *seen = known;
        servers.sort_unstable();
        servers.dedup();
        servers
    }

    /// Says that the server at `own` is there.
    pub(crate) async fn renew(&self, writer: &Writer, own: SocketAddr) -> Result<(), Status> {
        let (name, now) = (name(own), Timestamp::now());
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {LABEL: ""}},
            "spec": {
                "holderIdentity": own.to_string(),
                "leaseDurationSeconds": LEASE.as_secs(),
                "renewTime": format!("{now:.6}")
            }
        });
        let merge = |stored: &Value| {
            let mut merged = stored.clone();
            merged["spec"] = lease["spec"].clone();
            Some(merged)
        };
        writer.ensure(place(&name), &lease, merge).await
    }

    /// Removes the leases of servers that have said nothing for long: whoever starts next would
    /// take them for servers at first.
    pub(crate) async fn sweep(&self, writer: &Writer) -> Result<(), Status> {
        for (name, revision) in self.dead(Instant::now()) {
            // One that speaks again meanwhile keeps its lease.
            match writer.delete_at(place(&name), &revision).await {
                Err(status) if status.code == 409 => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// The leases that nobody keeps, as they were last seen.
    fn dead(&self, now: Instant) -> Vec<(String, String)> {
        let seen = self.seen.lock();
        let over = seen.iter().filter(|(_, seen)| now.duration_since(seen.since) >= FORGET);
        over.map(|(name, seen)| (name.clone(), seen.revision.clone())).collect()
    }

    /// Says that it is going.
    pub(crate) async fn leave(&self, writer: &Writer, own: SocketAddr) -> Result<(), Status> {
        writer.delete(place(&name(own))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_there_while_its_lease_changes() {
        let peers = Peers::default();
        let own: SocketAddr = "10.0.0.1:6443".parse().expect("address");
        let lease = |renewed: &str| {
            let spec = json!({"holderIdentity": "10.0.0.2:6443", "renewTime": renewed});
            let lease = json!({"metadata": {"resourceVersion": "7"}, "spec": spec});
            std::iter::once(("apiserver-10-0-0-2-6443".to_owned(), lease))
        };
        let start = Instant::now();
        let count = |renewed: &str, seconds: u64| {
            peers.judge(lease(renewed), own, start + Duration::from_secs(seconds)).len()
        };
        assert_eq!(count("a", 0), 2, "what is not known better is there");
        assert_eq!(count("a", 7), 2);
        assert_eq!(count("b", 9), 2);
        assert_eq!(count("b", 16), 2);
        assert_eq!(count("b", 17), 1);
        let dead = |seconds: u64| peers.dead(start + Duration::from_secs(seconds));
        assert!(dead(68).is_empty());
        assert_eq!(dead(69), [("apiserver-10-0-0-2-6443".to_owned(), "7".to_owned())]);
        assert_eq!(count("c", 99), 2, "it came back");
        assert!(dead(99).is_empty());
        assert_eq!(peers.judge(std::iter::empty(), own, start), [own]);
        assert_eq!(name(own), "apiserver-10-0-0-1-6443");
        assert_eq!(name("[fd00::1]:6443".parse().expect("address")), "apiserver-fd00--1--6443");
    }
}
