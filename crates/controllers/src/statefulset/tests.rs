//! StatefulSets played through in memory: plans are applied to objects, a kubelet answers, and
//! what happened is told as text.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use reconcile::Action;
use serde_json::{Value, json};

use super::*;
use crate::testing::{merge, time};

struct World {
    set: Value,
    pods: BTreeMap<String, Value>,
    revisions: BTreeMap<String, Value>,
    claims: BTreeMap<String, Value>,
    clock: Timestamp,
    /// Images whose pods never become ready.
    broken: Vec<String>,
    /// What was done to pods and claims, in order.
    told: Vec<String>,
    uids: u32,
}

impl World {
    fn new(spec: Value) -> Self {
        let mut set = json!({
            "metadata": { "name": "db", "namespace": "d", "uid": "set", "generation": 1 },
            "spec": {
                "replicas": 3, "serviceName": "peers", "revisionHistoryLimit": 1,
                "selector": { "matchLabels": { "app": "db" } },
                "podManagementPolicy": "OrderedReady",
                "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
                "template": template("1"),
            },
        });
        merge(&mut set["spec"], &spec);
        Self {
            set,
            pods: BTreeMap::new(),
            revisions: BTreeMap::new(),
            claims: BTreeMap::new(),
            clock: time("2026-01-01T00:00:00Z"),
            broken: Vec::new(),
            told: Vec::new(),
            uids: 0,
        }
    }

    fn change(&mut self, spec: Value) {
        merge(&mut self.set["spec"], &spec);
        let generation = self.set["metadata"]["generation"].as_i64().expect("number");
        self.set["metadata"]["generation"] = json!(generation + 1);
        self.told.clear();
    }

    fn plan(&self) -> Plan {
        fn all<T: serde::de::DeserializeOwned>(map: &BTreeMap<String, Value>) -> Vec<Arc<T>> {
            let parse = |value: &Value| serde_json::from_value(value.clone()).expect("an object");
            map.values().map(|value| Arc::new(parse(value))).collect()
        }
        let snapshot = Snapshot {
            set: Arc::new(serde_json::from_value(self.set.clone()).expect("a set")),
            pods: all(&self.pods),
            revisions: all(&self.revisions),
            claims: all(&self.claims),
        };
        plan(&snapshot, &Context::at(self.clock))
    }

    /// Plans and applies once; whether anything was to be done.
    fn step(&mut self) -> bool {
        self.clock += SignedDuration::from_secs(1);
        let plan = self.plan();
        let acted = !plan.is_empty();
        for action in plan.actions.into_iter().chain(plan.status) {
            self.apply(&action);
        }
        acted
    }

    fn apply(&mut self, action: &Action) {
        let (kind, name) = (action.resource().kind.clone(), action.name().to_owned());
        self.uids += 1;
        let map = match kind.as_str() {
            "Pod" => &mut self.pods,
            "ControllerRevision" => &mut self.revisions,
            "PersistentVolumeClaim" => &mut self.claims,
            _ => {
                let Action::Patch { patch, .. } = action else { panic!("{action:?}") };
                return merge(&mut self.set, patch);
            }
        };
        match action {
            Action::Create { object, .. } => {
                let mut object = object.clone();
                object["metadata"]["uid"] = json!(format!("u{}", self.uids));
                object["metadata"]["creationTimestamp"] = json!(self.clock.to_string());
                assert!(map.insert(name.clone(), object).is_none(), "{kind} {name} exists");
                if kind != "ControllerRevision" {
                    self.told.push(format!("+{name}"));
                }
            }
            Action::Delete { .. } if kind == "Pod" => {
                let pod = map.get_mut(&name).expect("the pod exists");
                assert_eq!(pod["metadata"]["deletionTimestamp"], Value::Null, "{name} twice");
                pod["metadata"]["deletionTimestamp"] = json!(self.clock.to_string());
                self.told.push(format!("-{name}"));
            }
            Action::Delete { .. } => drop(map.remove(&name)),
            Action::Patch { patch, .. } => merge(map.get_mut(&name).expect("exists"), patch),
        }
    }

    /// What a kubelet does: one deleted pod goes, or else one new one becomes ready.
    fn answer(&mut self) -> bool {
        let gone =
            self.pods.iter().find(|(_, pod)| pod["metadata"]["deletionTimestamp"].is_string());
        if let Some(name) = gone.map(|(name, _)| name.clone()) {
            self.pods.remove(&name);
            return true;
        }
        let (broken, clock) = (self.broken.clone(), self.clock.to_string());
        let image = |pod: &Value| pod["spec"]["containers"][0]["image"].as_str().map(str::to_owned);
        let waiting = self.pods.values_mut().find(|pod| {
            pod["status"].is_null() && !broken.iter().any(|one| Some(one) == image(pod).as_ref())
        });
        let Some(pod) = waiting else { return false };
        pod["status"] = json!({ "phase": "Running", "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": clock }] });
        true
    }

    /// Runs until nothing moves, never more than `most` of the wanted pods being unavailable.
    fn settle_within(&mut self, most: usize) -> String {
        for _ in 0..300 {
            let acted = self.step();
            let wanted = usize::try_from(self.set["spec"]["replicas"].as_i64().expect("size"));
            assert!(self.ready() + most >= wanted.expect("size"), "{:?}", self.told);
            if !self.answer() && !acted {
                return self.told.join(" ");
            }
        }
        panic!("does not settle: {:?}", self.told);
    }

    fn settle(&mut self) -> String {
        self.settle_within(100)
    }

    fn ready(&self) -> usize {
        let works = |pod: &&Value| {
            pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
        };
        self.pods.values().filter(works).count()
    }

    fn images(&self) -> String {
        let image = |pod: &Value| pod["spec"]["containers"][0]["image"].as_str().map(str::to_owned);
        self.pods.values().filter_map(image).collect::<Vec<_>>().join("")
    }

    fn status(&self, field: &str) -> Value {
        self.set["status"][field].clone()
    }
}

fn template(image: &str) -> Value {
    json!({ "metadata": { "labels": { "app": "db" } },
        "spec": { "containers": [{ "name": "db", "image": image }] } })
}

#[test]
fn pods_have_names_of_their_own_and_come_and_go_in_order() {
    let mut world = World::new(json!({}));
    assert_eq!(world.settle(), "+db-0 +db-1 +db-2");
    let pod = &world.pods["db-1"];
    assert_eq!(pod["spec"]["hostname"], "db-1");
    assert_eq!(pod["spec"]["subdomain"], "peers");
    assert_eq!(pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"], "db-1");
    assert_eq!(pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "1");
    let revision = world.revisions.keys().next().expect("one").clone();
    assert_eq!(pod["metadata"]["labels"]["controller-revision-hash"], revision);
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "set");
    assert_eq!(world.status("currentRevision"), revision);
    for field in
        ["replicas", "readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas"]
    {
        assert_eq!(world.status(field), 3, "{field}");
    }
    world.change(json!({ "replicas": 1 }));
    assert_eq!(world.settle(), "-db-2 -db-1");
    world.change(json!({ "replicas": 2, "ordinals": { "start": 5 } }));
    assert_eq!(world.settle(), "+db-5 +db-6 -db-0", "KEP-3335");
}

#[test]
fn in_parallel_nobody_waits() {
    let mut world = World::new(json!({ "podManagementPolicy": "Parallel" }));
    world.step();
    world.step();
    assert_eq!(world.told, ["+db-0", "+db-1", "+db-2"]);
    world.settle();
    world.change(json!({ "replicas": 0 }));
    world.step();
    assert_eq!(world.told, ["-db-2", "-db-1", "-db-0"]);
}

#[test]
fn in_order_nobody_follows_a_pod_that_does_not_work() {
    let mut world = World::new(json!({}));
    world.broken.push("1".into());
    assert_eq!(world.settle(), "+db-0");
    assert_eq!(world.status("readyReplicas"), Value::Null);
    world.broken.clear();
    assert_eq!(world.settle(), "+db-0 +db-1 +db-2");
}

#[test]
fn a_pod_is_replaced_only_when_it_is_gone() {
    let mut world = World::new(json!({}));
    world.settle();
    world.told.clear();
    world.pods.get_mut("db-1").expect("there")["metadata"]["deletionTimestamp"] =
        json!("2026-01-01T00:00:00Z");
    for _ in 0..5 {
        world.step();
    }
    assert!(world.told.is_empty(), "its node may still run it: {:?}", world.told);
    assert_eq!(world.settle(), "+db-1");
    world.told.clear();
    world.pods.get_mut("db-2").expect("there")["status"]["phase"] = json!("Failed");
    assert_eq!(world.settle(), "-db-2 +db-2");
}

#[test]
fn updates_go_down_from_the_top_one_at_a_time() {
    let mut world = World::new(json!({}));
    world.settle();
    let first = world.status("currentRevision");
    world.change(json!({ "template": template("2") }));
    assert_eq!(world.settle_within(1), "-db-2 +db-2 -db-1 +db-1 -db-0 +db-0");
    assert_eq!(world.images(), "222");
    assert_eq!(world.revisions.len(), 2);
    assert_ne!(world.status("currentRevision"), first);
    assert_eq!(world.status("currentRevision"), world.status("updateRevision"));
    // Back again: the same revision with a new number.
    world.change(json!({ "template": template("1") }));
    world.settle_within(1);
    assert_eq!(world.images(), "111");
    assert_eq!(world.status("currentRevision"), first);
    assert_eq!(world.revisions[first.as_str().expect("text")]["revision"], 3);
    for image in ["3", "4", "5"] {
        world.change(json!({ "template": template(image) }));
        world.settle_within(1);
    }
    assert_eq!(world.revisions.len(), 2, "the current one, and one more is kept");
}

#[test]
fn pods_below_the_partition_keep_the_old_template() {
    let mut world = World::new(json!({}));
    world.settle();
    let rolling = json!({ "rollingUpdate": { "partition": 2 } });
    world.change(json!({ "template": template("2"), "updateStrategy": rolling }));
    assert_eq!(world.settle_within(1), "-db-2 +db-2");
    assert_eq!(world.images(), "112");
    assert_eq!(
        (world.status("currentReplicas"), world.status("updatedReplicas")),
        (json!(2), json!(1))
    );
    world.pods.remove("db-0");
    world.settle();
    assert_eq!(world.images(), "112", "made again from what it was");
    world.change(json!({ "updateStrategy": { "rollingUpdate": { "partition": 0 } } }));
    world.settle_within(1);
    assert_eq!(world.images(), "222");
}

#[test]
fn several_may_be_updated_at_once_and_none_without_being_asked() {
    let mut world = World::new(json!({ "replicas": 5 }));
    world.settle();
    let rolling = json!({ "rollingUpdate": { "maxUnavailable": 2 } });
    world.change(json!({ "template": template("2"), "updateStrategy": rolling }));
    world.step();
    world.step();
    assert_eq!(world.told, ["-db-4", "-db-3"]);
    world.settle_within(2);
    assert_eq!(world.images(), "22222");
    let on_delete = json!({ "type": "OnDelete", "rollingUpdate": null });
    world.change(json!({ "template": template("3"), "updateStrategy": on_delete }));
    assert_eq!(world.settle(), "");
    world.pods.remove("db-2");
    world.settle();
    assert_eq!(world.images(), "22322");
}

#[test]
fn in_parallel_a_broken_update_is_undone_without_help() {
    let mut world = World::new(json!({ "podManagementPolicy": "Parallel" }));
    world.settle();
    world.broken.push("2".into());
    world.change(json!({ "template": template("2") }));
    assert_eq!(world.settle_within(1), "-db-2 +db-2");
    world.change(json!({ "template": template("1") }));
    assert_eq!(world.settle_within(1), "-db-2 +db-2");
    assert_eq!(world.images(), "111");
}

#[test]
fn a_pod_counts_after_min_ready_seconds() {
    let mut world = World::new(json!({ "minReadySeconds": 10 }));
    for _ in 0..6 {
        world.step();
        world.answer();
    }
    assert_eq!(world.told, ["+db-0"]);
    assert_eq!(world.status("readyReplicas"), 1);
    assert_eq!(world.status("availableReplicas"), 0);
    world.clock = world.plan().requeue_at.expect("a look when it is available");
    world.step();
    assert_eq!(world.told, ["+db-0", "+db-1"]);
}

fn with_claims(policy: Value) -> World {
    World::new(json!({ "replicas": 2, "persistentVolumeClaimRetentionPolicy": policy,
        "volumeClaimTemplates": [{ "metadata": { "name": "data", "labels": { "tier": "gold" } },
            "spec": { "accessModes": ["ReadWriteOnce"] } }] }))
}

#[test]
fn claims_are_made_with_pods_and_outlive_them() {
    let mut world = with_claims(json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }));
    assert_eq!(world.settle(), "+data-db-0 +db-0 +data-db-1 +db-1");
    let claim = &world.claims["data-db-1"];
    assert_eq!(claim["metadata"]["labels"], json!({ "app": "db", "tier": "gold" }));
    assert_eq!(claim["metadata"]["ownerReferences"], Value::Null);
    let volume = &world.pods["db-1"]["spec"]["volumes"][0];
    assert_eq!(volume["persistentVolumeClaim"]["claimName"], "data-db-1");
    world.change(json!({ "replicas": 1 }));
    world.settle();
    world.change(json!({ "replicas": 2 }));
    assert_eq!(world.settle(), "+db-1", "with the claim it had");
}

#[test]
fn claims_go_with_the_set_or_with_pods_scaled_away() {
    let mut world = with_claims(json!({ "whenDeleted": "Delete", "whenScaled": "Delete" }));
    world.settle();
    let owner = |world: &World, claim: &str| {
        world.claims[claim]["metadata"]["ownerReferences"][0]["kind"].clone()
    };
    assert_eq!(owner(&world, "data-db-1"), "StatefulSet");
    world.change(json!({ "replicas": 1 }));
    world.settle();
    assert_eq!(owner(&world, "data-db-1"), "Pod");
    assert_eq!(owner(&world, "data-db-0"), "StatefulSet");
    world.change(json!({ "replicas": 2 }));
    assert_eq!(world.settle(), "", "a claim about to go is given to nobody");
    world.claims.remove("data-db-1");
    assert_eq!(world.settle(), "+data-db-1 +db-1");
}

#[test]
fn a_set_that_goes_does_nothing_more() {
    let mut world = World::new(json!({}));
    world.settle();
    world.set["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.change(json!({ "replicas": 9 }));
    assert_eq!(world.settle(), "");
}
