//! Small questions about objects that several controllers ask: owners, selectors, pod states.
//!
//! Pure; decides nothing.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time},
};
use kube::Resource;
use meta::Selector;

/// The name of the index of controlled and orphaned objects, and of pods by owner.
pub(crate) const BY_CONTROLLER: &str = "controller";

/// The index values of an object's owner: the controller's uid, or its namespace's orphans.
pub(crate) fn controller_index<K: Resource>(object: &K) -> Vec<String> {
    let meta = object.meta();
    vec![match controller(meta) {
        Some(owner) => owner.uid.clone(),
        None => orphans(meta.namespace.as_deref().unwrap_or_default()),
    }]
}

/// The index value of the objects in `namespace` that nobody controls.
pub(crate) fn orphans(namespace: &str) -> String {
    format!("orphans/{namespace}")
}

/// The controlling owner.
pub(crate) fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// A reference that makes `owner` the controller of an object, and its deletion wait for it.
pub(crate) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: name(owner.meta()).to_owned(),
        uid: uid(owner.meta()).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The object's name, or nothing.
pub(crate) fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// The object's uid, or nothing.
pub(crate) fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// An annotation's value.
pub(crate) fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The selector as a predicate; one that cannot be read selects nothing.
pub(crate) fn selector(selector: &LabelSelector) -> Selector {
    serde_json::to_value(selector)
        .ok()
        .and_then(|value| Selector::from_label_selector(&value).ok())
        .unwrap_or_else(Selector::nothing)
}

/// Whether `selector` matches the object's labels.
pub(crate) fn selects(selector: &Selector, meta: &ObjectMeta) -> bool {
    selector.matches_with(|key| meta.labels.as_ref()?.get(key).map(String::as_str))
}

/// The pod's phase, `Pending` if unset.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether all containers have ended for good.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither finished nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Being deleted, with containers that may still run.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_some()
}

/// The pod's condition of that type.
pub(crate) fn pod_condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// The pod's conditions with one that says why it goes (KEP-3329).
pub(crate) fn disruption(
    pod: &Pod,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Vec<PodCondition> {
    let status = pod.status.as_ref().and_then(|status| status.conditions.clone());
    let mut conditions = status.unwrap_or_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    });
    conditions
}

/// Whether the pod's Ready condition is true.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    pod_condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Since when the pod is ready; `None` if it is not or the time is unknown.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let condition = pod_condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    condition.last_transition_time.as_ref().map(|time| time.0)
}

/// When a pod that is ready has been so for `min_ready` seconds; `None` if it is not ready.
pub(crate) fn available_at(pod: &Pod, min_ready: i32) -> Option<Timestamp> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready <= 0 {
        return Some(Timestamp::MIN);
    }
    ready_since(pod)?.checked_add(SignedDuration::from_secs(i64::from(min_ready))).ok()
}

/// `Some(number)` unless it is zero, which the API omits.
pub(crate) fn nonzero(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}

/// A count as the API writes it.
pub(crate) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
