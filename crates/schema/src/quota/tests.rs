//! Which objects quotas are about, what they use, and what is said where they do not fit.

use jiff::Timestamp;
use meta::GroupResource;
use serde_json::{Value, json};

use super::{Devices, Limited, Meter, Refusal, Write, check};
use crate::patch::merge_patch;

fn meter(resource: &str) -> Meter {
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    Meter::of(&GroupResource::new(group, resource)).expect("counted")
}

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().expect("time")
}

fn quota(hard: Value, used: Value, spec: Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": hard, "used": used}})
}

fn pod(patch: Value) -> Value {
    let mut pod = json!({"spec": {"containers": [{"name": "c", "resources": {
        "requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}}}]}});
    merge_patch(&mut pod, &patch);
    pod
}

/// What the object uses, a line.
fn used(resource: &str, object: &Value) -> String {
    let usage = meter(resource).usage(object, now());
    usage.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
}

/// The new usage of each charged quota, or the refusal.
fn told(quotas: &[Value], resource: &str, object: &Value, old: Option<&Value>) -> String {
    limited(quotas, resource, object, old, &[])
}

fn limited(
    quotas: &[Value],
    resource: &str,
    object: &Value,
    old: Option<&Value>,
    limited: &[Limited],
) -> String {
    let meter = meter(resource);
    assert!(meter.asks("", object, old), "nobody asks about this write");
    let (devices, now) = (&Devices::default(), now());
    let write = Write { meter: &meter, subresource: "", object, old, limited, devices, now };
    match check(quotas, &write) {
        Ok(charges) => {
            charges.iter().map(|charge| charge.used.to_string()).collect::<Vec<_>>().join(";")
        }
        Err(Refusal::Forbidden(why) | Refusal::Failed(why)) => why,
    }
}

#[test]
fn objects_use_what_upstream_says() {
    assert_eq!(
        used("pods", &pod(json!({}))),
        "count/pods=1 cpu=1 limits.cpu=2 memory=1Gi pods=1 requests.cpu=1 requests.memory=1Gi"
    );
    assert_eq!(used("pods", &pod(json!({"status": {"phase": "Succeeded"}}))), "count/pods=1");
    let overdue = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}});
    assert_eq!(used("pods", &pod(overdue)), "count/pods=1");
    let gpu = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "2"}}}]}});
    assert_eq!(used("pods", &pod(gpu)), "count/pods=1 pods=1 requests.example.com/gpu=2");
    let service = |kind: &str, more: Value| {
        let mut service =
            json!({"spec": {"type": kind, "ports": [{"port": 1, "nodePort": 30001}, {"port": 2}]}});
        merge_patch(&mut service, &json!({"spec": more}));
        used("services", &service)
    };
    let counted = "count/services=1 services=1 services";
    assert_eq!(
        service("ClusterIP", json!({})),
        format!("{counted}.loadbalancers=0 services.nodeports=0")
    );
    assert_eq!(
        service("NodePort", json!({})),
        format!("{counted}.loadbalancers=0 services.nodeports=2")
    );
    assert_eq!(
        service("LoadBalancer", json!({})),
        format!("{counted}.loadbalancers=1 services.nodeports=2")
    );
    assert_eq!(
        service("LoadBalancer", json!({"allocateLoadBalancerNodePorts": false})),
        format!("{counted}.loadbalancers=1 services.nodeports=1")
    );
    let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"allocatedResources": {"storage": "2Gi"}}});
    assert_eq!(
        used("persistentvolumeclaims", &claim),
        "count/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
         gold.storageclass.storage.k8s.io/requests.storage=2Gi persistentvolumeclaims=1 requests.storage=2Gi"
    );
    assert_eq!(used("deployments.apps", &json!({})), "count/deployments.apps=1");
    assert_eq!(used("secrets", &json!({})), "count/secrets=1 secrets=1");
    let devices = json!({"spec": {"devices": {"requests": [
        {"name": "a", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}},
        {"name": "b", "firstAvailable": [
            {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1},
            {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 3}]}]}}});
    assert_eq!(
        used("resourceclaims.resource.k8s.io", &devices),
        "count/resourceclaims.resource.k8s.io=1 gpu.deviceclass.resource.k8s.io/devices=5"
    );
    assert!(Meter::of(&GroupResource::new("", "events")).is_none());
}

#[test]
fn names_lead_to_what_they_count() {
    let names = [
        "requests.cpu",
        "pods",
        "count/deployments.apps",
        "gold.storageclass.storage.k8s.io/requests.storage",
        "services.nodeports",
        "secrets",
        "requests.example.com/gpu",
        "gpu.deviceclass.resource.k8s.io/devices",
    ];
    let resources: Vec<String> =
        Meter::named(names).iter().map(|meter| meter.resource().to_string()).collect();
    assert_eq!(
        resources,
        [
            "pods",
            "deployments.apps",
            "persistentvolumeclaims",
            "services",
            "secrets",
            "resourceclaims.resource.k8s.io"
        ]
    );
}

#[test]
fn scopes_hold_what_they_should() {
    let is_in = |spec: Value, patch: Value| {
        meter("pods").matches(&quota(json!({"pods": "1"}), json!({}), spec), &pod(patch))
    };
    let scope = |name: &str| json!({"scopes": [name]});
    let (none, deadline) = (json!({}), json!({"spec": {"activeDeadlineSeconds": 5}}));
    let modest = json!({"spec": {"containers": [{"name": "c"}]}});
    for (name, inside, outside) in [
        ("Terminating", &deadline, &none),
        ("NotTerminating", &none, &deadline),
        ("BestEffort", &modest, &none),
        ("NotBestEffort", &none, &modest),
    ] {
        assert!(is_in(scope(name), inside.clone()), "{name}");
        assert!(!is_in(scope(name), outside.clone()), "{name}");
    }
    let of_class = |operator: &str, values: &[&str]| {
        json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
    };
    let high = json!({"spec": {"priorityClassName": "high"}});
    for (operator, values, with, without) in [
        ("Exists", &[][..], true, false),
        ("DoesNotExist", &[], false, true),
        ("In", &["high"], true, false),
        ("In", &["low"], false, false),
        ("NotIn", &["high"], false, true),
        ("NotIn", &["low"], true, true),
    ] {
        assert_eq!(is_in(of_class(operator, values), high.clone()), with, "{operator} {values:?}");
        assert_eq!(
            is_in(of_class(operator, values), none.clone()),
            without,
            "{operator} {values:?}"
        );
    }
    let affinity = |term: Value| {
        json!({"spec": {"affinity": {"podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": term}]}}}})
    };
    let cross = scope("CrossNamespacePodAffinity");
    assert!(is_in(cross.clone(), affinity(json!({"namespaces": ["a"]}))));
    assert!(is_in(cross.clone(), affinity(json!({"namespaceSelector": {}}))));
    assert!(!is_in(cross, affinity(json!({"topologyKey": "zone"}))));
    let claims = quota(
        json!({"persistentvolumeclaims": "1"}),
        json!({}),
        json!({"scopeSelector": {
        "matchExpressions": [{"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["fast"]}]}}),
    );
    let claim = |class: &str| json!({"spec": {"volumeAttributesClassName": class}});
    assert!(meter("persistentvolumeclaims").matches(&claims, &claim("fast")));
    assert!(!meter("persistentvolumeclaims").matches(&claims, &claim("slow")));
    assert!(!meter("services").in_scopes(&claims, &json!({})), "other kinds have no scopes");
}

#[test]
fn what_fits_is_charged_and_what_does_not_is_refused() {
    let room = |cpu: &str| {
        [quota(
            json!({"requests.cpu": "2", "pods": "5"}),
            json!({"requests.cpu": cpu, "pods": "1"}),
            json!({}),
        )]
    };
    assert_eq!(
        told(&room("1"), "pods", &pod(json!({})), None),
        r#"{"pods":"2","requests.cpu":"2"}"#
    );
    assert_eq!(
        told(&room("1500m"), "pods", &pod(json!({})), None),
        "exceeded quota: q, requested: requests.cpu=1, used: requests.cpu=1500m, limited: requests.cpu=2"
    );
    let silent = pod(json!({"spec": {"initContainers": [{"name": "b"}, {"name": "a"}]}}));
    assert_eq!(
        told(&room("1"), "pods", &silent, None),
        "failed quota: q: must specify requests.cpu for: a,b"
    );
    let unknown =
        [quota(json!({"pods": "5", "requests.cpu": "1"}), json!({"pods": "1"}), json!({}))];
    assert_eq!(
        told(&unknown, "pods", &pod(json!({})), None),
        "status unknown for quota: q, resources: pods,requests.cpu"
    );
    assert_eq!(told(&[], "pods", &pod(json!({})), None), "");
}

#[test]
fn changes_are_charged_by_what_they_add() {
    let service = |kind: &str| json!({"spec": {"type": kind, "ports": [{"port": 1}]}});
    let full = [quota(
        json!({"services": "1", "services.nodeports": "1"}),
        json!({"services": "1", "services.nodeports": "0"}),
        json!({}),
    )];
    let (plain, open) = (service("ClusterIP"), service("NodePort"));
    assert_eq!(
        told(&full, "services", &open, Some(&plain)),
        r#"{"services":"1","services.nodeports":"1"}"#
    );
    assert_eq!(
        told(&full, "services", &plain, Some(&open)),
        "",
        "less is given back by counting anew"
    );
    // A pod that comes into a scope is charged whole.
    let quotas =
        [quota(json!({"pods": "1"}), json!({"pods": "1"}), json!({"scopes": ["Terminating"]}))];
    let ends = pod(json!({"spec": {"activeDeadlineSeconds": 5}}));
    assert_eq!(
        told(&quotas, "pods", &ends, Some(&pod(json!({})))),
        "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
    );
}

#[test]
fn what_is_limited_by_configuration_needs_a_quota() {
    let gold = Limited::read(
        &json!({"resource": "persistentvolumeclaims", "matchContains": ["gold.storageclass"]}),
    );
    let claim = json!({"spec": {"storageClassName": "gold"}});
    assert_eq!(
        limited(&[], "persistentvolumeclaims", &claim, None, std::slice::from_ref(&gold)),
        "insufficient quota to consume: gold.storageclass.storage.k8s.io/persistentvolumeclaims"
    );
    let high = Limited::read(&json!({"resource": "pods", "matchScopes": [
        {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}));
    let important = pod(json!({"spec": {"priorityClassName": "high"}}));
    let high = [high];
    assert_eq!(
        limited(&[], "pods", &important, None, &high),
        "insufficient quota to match these scopes: [{PriorityClass In [high]}]"
    );
    let quotas =
        [quota(json!({"pods": "5"}), json!({"pods": "0"}), json!({"scopes": ["PriorityClass"]}))];
    assert_eq!(limited(&quotas, "pods", &important, None, &high), r#"{"pods":"1"}"#);
}

#[test]
fn claims_stand_for_extended_resources() {
    let classes = [
        json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}}),
        json!({"metadata": {"name": "nic"}, "spec": {}}),
    ];
    let claim = |name: &str, meta: Value| {
        let mut claim = json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [
            {"name": "a", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 3}},
            {"name": "b", "exactly": {"deviceClassName": "nic", "allocationMode": "ExactCount", "count": 1}}]}}});
        merge_patch(&mut claim, &json!({"metadata": meta}));
        claim
    };
    let used = |claim: &Value, claims: &[Value], pods: &[Value]| {
        let devices = Devices::new(&classes, claims, pods, now());
        let usage = meter("resourceclaims.resource.k8s.io").usage_among(claim, now(), &devices);
        let of_resources = usage.iter().filter(|(name, _)| name.starts_with("requests."));
        of_resources.map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
    };
    let whole = "requests.deviceclass.resource.kubernetes.io/gpu=3 \
        requests.deviceclass.resource.kubernetes.io/nic=1 requests.example.com/gpu=3";
    assert_eq!(used(&claim("c", json!({})), &[], &[]), whole);
    // What a pod is charged for is not charged again for the one claim that a scheduler made for it.
    let owner =
        json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]);
    let made = json!({"annotations": {"resource.kubernetes.io/extended-resource-claim": "true"}, "ownerReferences": owner});
    let (first, second) = (claim("c", made.clone()), claim("d", made));
    let claims = [first.clone(), second.clone()];
    let requests = json!({"example.com/gpu": "2", "deviceclass.resource.kubernetes.io/nic": "1"});
    let pod = |status: Value| {
        let container = json!({"name": "c", "resources": {"requests": requests}});
        json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [container]}, "status": status})
    };
    let rest = "requests.deviceclass.resource.kubernetes.io/gpu=3 requests.example.com/gpu=1";
    assert_eq!(used(&first, &claims, &[pod(json!({}))]), rest);
    assert_eq!(used(&second, &claims, &[pod(json!({}))]), whole);
    let said = json!({"extendedResourceClaimStatus": {"resourceClaimName": "d"}});
    assert_eq!(used(&first, &claims, &[pod(said.clone())]), whole);
    assert_eq!(used(&second, &claims, &[pod(said)]), rest);
    assert_eq!(used(&first, &claims, &[]), whole);
}
