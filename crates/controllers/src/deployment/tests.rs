//! Rollouts played through in memory: plans are applied to objects, pods become ready one by
//! one, and the promises of the strategy are checked after every step.

use std::collections::BTreeMap;

use reconcile::{Action, Failure};
use serde_json::{Value, json};

use super::*;
use crate::testing::{merge, time};

struct World {
    deployment: Value,
    sets: BTreeMap<String, Value>,
    /// Templates whose pods never become ready.
    broken: Vec<String>,
    clock: jiff::Timestamp,
    events: Vec<String>,
    failure: Option<Failure>,
    /// Pods of removed replicas that still run (Recreate).
    lingering: Vec<Arc<Pod>>,
}

impl World {
    fn new(spec: Value) -> Self {
        let mut deployment = json!({
            "metadata": { "name": "web", "namespace": "default", "uid": "d", "generation": 1,
                "annotations": { "kubernetes.io/change-cause": "first" } },
            "spec": {
                "selector": { "matchLabels": { "app": "web" } },
                "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
                "strategy": { "type": "RollingUpdate",
                    "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
                "template": template("1.0.0"),
            },
        });
        merge(&mut deployment["spec"], &spec);
        Self {
            deployment,
            sets: BTreeMap::new(),
            broken: Vec::new(),
            clock: time("2026-01-01T00:00:00Z"),
            events: Vec::new(),
            failure: None,
            lingering: Vec::new(),
        }
    }

    fn change(&mut self, spec: Value) {
        merge(&mut self.deployment["spec"], &spec);
        let generation = self.deployment["metadata"]["generation"].as_i64().expect("number");
        self.deployment["metadata"]["generation"] = json!(generation + 1);
    }

    fn plan(&self) -> Plan {
        let sets = self.sets.values().map(|set| {
            Arc::new(serde_json::from_value::<ReplicaSet>(set.clone()).expect("a ReplicaSet"))
        });
        let snapshot = Snapshot {
            deployment: Arc::new(serde_json::from_value(self.deployment.clone()).expect("valid")),
            sets: sets.collect(),
            pods: self.lingering.clone(),
        };
        plan(&snapshot, &Context { now: self.clock, failure: self.failure.clone() })
    }

    /// Plans and applies once; whether anything was to be done.
    fn step(&mut self) -> bool {
        let plan = self.plan();
        let acted = !plan.is_empty();
        self.failure = None;
        for action in plan.actions.into_iter().chain(plan.status) {
            self.apply(action);
        }
        acted
    }

    fn apply(&mut self, action: Action) {
        let name = action.name().to_owned();
        match &action {
            Action::Create { object, .. } => {
                let mut object = object.clone();
                object["metadata"]["uid"] = json!(format!("uid-{name}"));
                object["metadata"]["creationTimestamp"] = json!(self.clock.to_string());
                assert!(!self.sets.contains_key(&name), "{name} exists");
                self.sets.insert(name.clone(), object);
            }
            Action::Delete { .. } => {
                self.sets.remove(&name).expect("deleted set exists");
            }
            Action::Patch { patch, resource, .. } => {
                let object = match resource.kind.as_str() {
                    "Deployment" => &mut self.deployment,
                    _ => self.sets.get_mut(&name).expect("patched set exists"),
                };
                merge(object, patch);
            }
        }
        if let Action::Create { report: Some(report), .. }
        | Action::Patch { report: Some(report), .. } = &action
            && let Some((_, note)) = &report.done
        {
            self.events.push(note.clone());
        }
    }

    /// What ReplicaSets and kubelets do: pods appear and go at once, and one becomes ready.
    fn answer(&mut self) -> bool {
        let mut changed = false;
        let broken = self.broken.clone();
        let mut may_ready = 1;
        for set in self.sets.values_mut() {
            let size = set["spec"]["replicas"].as_i64().expect("size");
            let ready = set["status"]["availableReplicas"].as_i64().unwrap_or(0);
            let mut ready_now = ready.min(size);
            let image = set["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
            if ready_now < size
                && may_ready > 0
                && !broken.iter().any(|one| Some(one.as_str()) == image)
            {
                ready_now += 1;
                may_ready -= 1;
            }
            let status = json!({ "replicas": size, "readyReplicas": ready_now,
                "availableReplicas": ready_now });
            changed |= set["status"] != status;
            set["status"] = status;
        }
        changed
    }

    fn sizes(&self) -> (i64, i64) {
        let sum = |path: &str| {
            self.sets
                .values()
                .map(|set| set.pointer(path).and_then(Value::as_i64).unwrap_or(0))
                .sum()
        };
        (sum("/spec/replicas"), sum("/status/availableReplicas"))
    }

    /// Runs until nothing moves; `check` sees total and available pods after every step.
    fn settle(&mut self, mut check: impl FnMut(i64, i64)) {
        for _ in 0..500 {
            self.clock = self.clock.checked_add(SignedDuration::from_secs(1)).expect("in range");
            let acted = self.step();
            let (total, available) = self.sizes();
            check(total, available);
            let answered = self.answer();
            if !acted && !answered {
                return;
            }
        }
        panic!("does not settle");
    }

    fn images(&self) -> BTreeMap<String, i64> {
        self.sets
            .values()
            .map(|set| {
                let image = &set["spec"]["template"]["spec"]["containers"][0]["image"];
                let size = set["spec"]["replicas"].as_i64().expect("size");
                (image.as_str().expect("image").to_owned(), size)
            })
            .collect()
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let conditions = self.deployment["status"]["conditions"].as_array().expect("conditions");
        let one = conditions.iter().find(|one| one["type"] == kind).expect("condition");
        let text = |field: &str| one[field].as_str().expect("text").to_owned();
        (text("status"), text("reason"))
    }

    fn revision(&self) -> &str {
        self.deployment["metadata"]["annotations"][annotations::REVISION].as_str().expect("text")
    }
}

use jiff::SignedDuration;

fn template(version: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "web", "image": version }] },
    })
}

fn images<const N: usize>(sizes: [(&str, i64); N]) -> BTreeMap<String, i64> {
    sizes.map(|(image, size)| (image.to_owned(), size)).into()
}

#[test]
fn a_deployment_rolls_out_updates_and_is_undone() {
    let mut world = World::new(json!({ "replicas": 3 }));
    world.settle(|_, _| {});
    assert_eq!(world.images(), images([("1.0.0", 3)]));
    assert_eq!(world.revision(), "1");
    assert_eq!(world.condition("Available").1, "MinimumReplicasAvailable");
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
    let (name, set) = world.sets.first_key_value().expect("one");
    assert!(name.starts_with("web-"));
    assert_eq!(world.events, [format!("Scaled up replica set {name} from 0 to 3")]);
    assert_eq!(set["metadata"]["annotations"]["kubernetes.io/change-cause"], "first");
    assert_eq!(set["metadata"]["annotations"][annotations::DESIRED], "3");
    assert_eq!(set["metadata"]["annotations"][annotations::MAXIMUM], "4");
    assert_eq!(set["metadata"]["labels"][replica_sets::HASH], name["web-".len()..]);
    assert_eq!(world.deployment["status"]["observedGeneration"], 1);

    world.change(json!({ "template": template("1.1.0") }));
    world.settle(|total, available| {
        assert!(total <= 4 && available >= 3, "{total} pods, {available} available");
    });
    assert_eq!(world.images(), images([("1.0.0", 0), ("1.1.0", 3)]));
    assert_eq!(world.revision(), "2");
    assert_eq!(world.deployment["status"]["updatedReplicas"], 3);
    assert_eq!(world.deployment["status"]["unavailableReplicas"], Value::Null);

    // What `kubectl rollout undo` does: the template of the old ReplicaSet again.
    world.change(json!({ "template": template("1.0.0") }));
    world.settle(|total, available| assert!(total <= 4 && available >= 3));
    assert_eq!(world.images(), images([("1.0.0", 3), ("1.1.0", 0)]));
    assert_eq!(world.revision(), "3");
    let first = world.sets.values().find(|set| set["spec"]["replicas"] == 3).expect("one");
    assert_eq!(first["metadata"]["annotations"][annotations::REVISION], "3");
    assert_eq!(first["metadata"]["annotations"][annotations::HISTORY], "1");
}

#[test]
fn a_broken_version_never_takes_over_and_times_out() {
    let mut world = World::new(json!({ "replicas": 3 }));
    world.settle(|_, _| {});
    world.broken.push("1.2.0".into());
    world.change(json!({ "template": template("1.2.0") }));
    world.settle(|total, available| assert!(total <= 4 && available >= 3));
    assert_eq!(world.images(), images([("1.0.0", 3), ("1.2.0", 1)]));
    let due = world.plan().requeue_at.expect("a look after the deadline");
    world.clock = due;
    world.settle(|_, _| {});
    assert_eq!(world.condition("Progressing"), ("False".into(), "ProgressDeadlineExceeded".into()));
    assert_eq!(world.condition("Available").0, "True");

    world.change(json!({ "template": template("1.0.0") }));
    world.settle(|total, available| assert!(total <= 4 && available >= 3));
    assert_eq!(world.images(), images([("1.0.0", 3), ("1.2.0", 0)]));
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
}

#[test]
fn limits_hold_for_every_strategy() {
    for replicas in [1, 2, 5, 10] {
        for (surge, missing) in [
            (json!(1), json!(0)),
            (json!(0), json!(1)),
            (json!("25%"), json!("25%")),
            (json!("100%"), json!("50%")),
            (json!(0), json!(0)),
        ] {
            let rolling =
                json!({ "rollingUpdate": { "maxSurge": surge, "maxUnavailable": missing } });
            let mut world = World::new(json!({ "replicas": replicas, "strategy": rolling }));
            let spec: DeploymentSpec =
                serde_json::from_value(world.deployment["spec"].clone()).expect("valid");
            let (surge, missing) = fenceposts(&spec);
            world.settle(|_, _| {});
            world.change(json!({ "template": template("1.1.0") }));
            let (most, least) = (replicas + i64::from(surge), replicas - i64::from(missing));
            world.settle(|total, available| {
                assert!(total <= most && available >= least, "{total} {available} {rolling}");
            });
            assert_eq!(world.images(), images([("1.0.0", 0), ("1.1.0", replicas)]));
        }
    }
}

#[test]
fn scaling_in_the_middle_of_a_rollout_keeps_proportions() {
    let rolling = json!({ "rollingUpdate": { "maxSurge": 3, "maxUnavailable": 2 } });
    let mut world = World::new(json!({ "replicas": 10, "strategy": rolling }));
    world.settle(|_, _| {});
    world.broken.push("1.1.0".into());
    world.change(json!({ "template": template("1.1.0") }));
    world.settle(|_, _| {});
    assert_eq!(world.images(), images([("1.0.0", 8), ("1.1.0", 5)]));
    world.change(json!({ "replicas": 15 }));
    world.step();
    assert_eq!(world.images(), images([("1.0.0", 11), ("1.1.0", 7)]));
    world.broken.clear();
    world.settle(|total, _| assert!(total <= 18));
    assert_eq!(world.images(), images([("1.0.0", 0), ("1.1.0", 15)]));
    world.change(json!({ "replicas": 0 }));
    world.settle(|_, _| {});
    assert_eq!(world.sizes(), (0, 0));
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::new(json!({ "replicas": 2 }));
    world.settle(|_, _| {});
    world.change(json!({ "paused": true, "template": template("1.1.0"), "replicas": 4 }));
    world.settle(|_, _| {});
    assert_eq!(world.images(), images([("1.0.0", 4)]));
    assert_eq!(world.condition("Progressing"), ("Unknown".into(), "DeploymentPaused".into()));
    world.change(json!({ "paused": false }));
    world.step();
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetCreated");
    world.settle(|_, _| {});
    assert_eq!(world.images(), images([("1.0.0", 0), ("1.1.0", 4)]));
}

#[test]
fn recreate_waits_for_the_old_pods_to_go() {
    let strategy = json!({ "type": "Recreate", "rollingUpdate": null });
    let mut world = World::new(json!({ "replicas": 2, "strategy": strategy }));
    world.settle(|_, _| {});
    assert_eq!(world.images(), images([("1.0.0", 2)]));
    let uid = world.sets.values().next().expect("one")["metadata"]["uid"].clone();
    let pod = json!({ "metadata": { "name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z",
        "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x",
            "uid": uid, "controller": true }] } });
    world.lingering = vec![Arc::new(serde_json::from_value(pod).expect("a pod"))];
    world.change(json!({ "template": template("1.1.0") }));
    world.settle(|_, _| {});
    assert_eq!(world.images(), images([("1.0.0", 0)]));
    world.lingering.clear();
    world.settle(|_, _| {});
    assert_eq!(world.images(), images([("1.0.0", 0), ("1.1.0", 2)]));
}

#[test]
fn history_is_limited_and_keeps_the_latest() {
    let mut world = World::new(json!({ "replicas": 1 }));
    for version in ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"] {
        world.change(json!({ "template": template(version) }));
        world.settle(|_, _| {});
    }
    let kept: Vec<_> = world.images().into_keys().collect();
    assert_eq!(kept, ["1.2.0", "1.3.0", "1.4.0"]);
    assert_eq!(world.revision(), "5");
}

#[test]
fn a_taken_name_changes_the_next_one() {
    let mut world = World::new(json!({ "replicas": 1 }));
    let first = world.plan();
    world.failure = Some(Failure {
        verb: "creating",
        code: Some(409),
        reason: "AlreadyExists".into(),
        message: "taken".into(),
        object: first.actions[0].name().into(),
    });
    let second = world.plan();
    assert_ne!(first.actions[0].name(), second.actions[0].name());
    world.settle(|_, _| {});
    assert_eq!(world.deployment["status"]["collisionCount"], 1);
    assert_eq!(world.images(), images([("1.0.0", 1)]));
}
