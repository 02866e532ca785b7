//! ServiceCIDRs: ready as soon as they are there, and kept while an address needs them.
//!
//! A range that is deleted goes only when every address in it lies in another range as well
//! (KEP-1880). Knows nothing of who takes addresses.

use std::{net::IpAddr, sync::Arc, time::Duration};

use client::{Cache, Caches, ObjectKey};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::networking::v1::{IPAddress, ServiceCIDR, ServiceCIDRStatus},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::ResourceExt;
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::objects::name;

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "service-cidr-controller";

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// The label that says who made an IPAddress, and the maker that counts.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";
/// How long after its deletion a range stays at least: whoever takes addresses must have seen it.
const GRACE: Duration = Duration::from_secs(10);

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let ranges = caches.cache::<ServiceCIDR>();
    let addresses = caches.cache::<IPAddress>();
    let (all, going) = (ranges.clone(), ranges.clone());
    Runtime::new(NAME, deps)
        // A range that comes may free one that waits to go.
        .watch(&ranges, move |change| {
            let others = all.list().into_iter().filter(|range| is_deleted(range));
            others.map(|range| ObjectKey::of(&*range)).chain([change.key.clone()]).collect()
        })
        .watch(&addresses, move |change| {
            let waiting = going.list().into_iter().filter(|range| is_deleted(range));
            let freed = change.after.is_none();
            waiting.filter(|_| freed).map(|range| ObjectKey::of(&*range)).collect()
        })
        .run(Keeper { ranges, addresses }, shutdown)
        .await;
}

fn is_deleted(range: &ServiceCIDR) -> bool {
    range.metadata.deletion_timestamp.is_some()
}

fn networks(range: &ServiceCIDR) -> Vec<IpNet> {
    let spec = range.spec.as_ref().and_then(|spec| spec.cidrs.as_ref());
    spec.into_iter().flatten().filter_map(|text| text.parse().ok()).collect()
}

struct Keeper {
    ranges: Cache<ServiceCIDR>,
    addresses: Cache<IPAddress>,
}

/// A range, the ranges beside it, and the addresses that Services have.
struct Snapshot {
    range: Arc<ServiceCIDR>,
    others: Vec<IpNet>,
    addresses: Vec<IpAddr>,
}

impl Controller for Keeper {
    type Snapshot = Snapshot;

    fn observe(&self, key: &ObjectKey) -> Option<Snapshot> {
        let range = self.ranges.get_key(key)?;
        // Only a range that goes is compared with the rest.
        if !is_deleted(&range) {
            return Some(Snapshot { range, others: Vec::new(), addresses: Vec::new() });
        }
        let own = name(&range.metadata).to_owned();
        let others = self.ranges.list().into_iter().filter(|other| name(&other.metadata) != own);
        let addresses = self.addresses.list().into_iter().filter(|address| {
            address.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
        });
        Some(Snapshot {
            others: others.flat_map(|other| networks(&other)).collect(),
            addresses: addresses.filter_map(|a| name(&a.metadata).parse().ok()).collect(),
            range,
        })
    }

    fn plan(&self, snapshot: &Snapshot, context: &Context) -> Plan {
        plan(snapshot, context.now)
    }
}

fn plan(snapshot: &Snapshot, now: Timestamp) -> Plan {
    let range = &*snapshot.range;
    let mut plan = Plan::nothing();
    let finalizers = range.finalizers();
    let held = finalizers.iter().any(|finalizer| finalizer == FINALIZER);
    let Some(deleted) = &range.metadata.deletion_timestamp else {
        if !held {
            let finalizers: Vec<&str> =
                finalizers.iter().map(String::as_str).chain([FINALIZER]).collect();
            plan.act(Action::patch_exact(range, json!({"metadata": {"finalizers": finalizers}})));
        }
        set_ready(&mut plan, range, "True", "", "Kubernetes Service CIDR is ready", now);
        return plan;
    };
    if !held {
        return plan;
    }
    if is_needed(snapshot) {
        let text = "There are still IPAddresses referencing the ServiceCIDR, please remove them \
                    or create a new ServiceCIDR";
        set_ready(&mut plan, range, "False", "Terminating", text, now);
        return plan;
    }
    let end = deleted.0 + SignedDuration::try_from(GRACE).unwrap_or_default();
    if now < end {
        plan.requeue_at = Some(end);
        return plan;
    }
    let rest: Vec<&String> = finalizers.iter().filter(|other| *other != FINALIZER).collect();
    plan.act(Action::patch_exact(range, json!({"metadata": {"finalizers": rest}})));
    plan
}

/// Whether an address would be left without a range.
fn is_needed(snapshot: &Snapshot) -> bool {
    let own = networks(&snapshot.range);
    if own.iter().all(|network| snapshot.others.iter().any(|other| other.contains(network))) {
        return false;
    }
    let holds = |ranges: &[IpNet], address| ranges.iter().any(|range| range.contains(address));
    snapshot
        .addresses
        .iter()
        .any(|address| holds(&own, address) && !holds(&snapshot.others, address))
}

fn set_ready(
    plan: &mut Plan,
    range: &ServiceCIDR,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let before = range.status.clone().unwrap_or_default();
    let mut conditions = before.conditions.clone().unwrap_or_default();
    let known = conditions.iter().find(|condition| condition.type_ == "Ready");
    let since =
        known.filter(|known| known.status == status).map(|k| k.last_transition_time.clone());
    conditions.retain(|condition| condition.type_ != "Ready");
    conditions.push(Condition {
        type_: "Ready".into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: since.unwrap_or(Time(now)),
        observed_generation: None,
    });
    let after = ServiceCIDRStatus { conditions: Some(conditions) };
    plan.status = Action::status(range, &before, &after);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, told};

    /// What is done at a second of 1970 about a range of 10.1.0.0/16.
    fn check(metadata: &str, others: &[&str], addresses: &[&str], second: i64) -> String {
        let yaml = format!(
            "{{metadata: {{name: a, resourceVersion: '1', {metadata}}}, spec: {{cidrs: [10.1.0.0/16]}},
               status: {{conditions: [{{type: Ready, status: 'True', reason: '',
                 message: Kubernetes Service CIDR is ready, lastTransitionTime: '1970-01-01T00:00:00Z'}}]}}}}"
        );
        let snapshot = Snapshot {
            range: Arc::new(from_yaml(&yaml)),
            others: others.iter().map(|text| text.parse().expect("range")).collect(),
            addresses: addresses.iter().map(|text| text.parse().expect("address")).collect(),
        };
        let now = Timestamp::from_second(second).expect("time");
        let plan = plan(&snapshot, now);
        let wait = plan.requeue_at.map(|at| format!("wait until {}", at.as_second()));
        told(&plan).into_iter().chain(wait).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_range_is_held_until_no_address_needs_it() {
        assert!(check("", &[], &[], 0).contains(FINALIZER));
        let held = format!("finalizers: [other, {FINALIZER}]");
        assert_eq!(check(&held, &[], &["10.1.0.1"], 0), "", "nothing to do");
        let going = format!("{held}, deletionTimestamp: '1970-01-01T00:01:00Z'");
        let blocked = check(&going, &["10.1.0.0/24"], &["10.1.0.1", "10.1.1.1"], 99);
        assert!(blocked.contains("Terminating"), "{blocked}");
        assert_eq!(check(&going, &[], &["10.2.0.1"], 65), "wait until 70");
        for (others, addresses) in [
            (&[][..], &["10.2.0.1"][..]),
            (&["10.1.0.0/24"], &["10.1.0.1"]),
            (&["10.0.0.0/8"], &["10.1.9.9"]),
        ] {
            let freed = check(&going, others, addresses, 70);
            assert!(freed.contains(r#""finalizers":["other"]"#), "{freed}");
        }
    }
}
