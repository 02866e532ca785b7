//! What the system makes of objects after admission: fields behind features that are switched off go, aliases
//! follow each other, and what pods say of themselves moves into their selectors.
//!
//! What the old object has stays, so that objects of a former version are not changed in passing.

use std::collections::{HashMap, VecDeque};

use meta::GroupVersionKind;
use serde_json::{Map, Value, json};

use super::pod::{APP_ARMOR, LISTS, app_armor_profile};
use crate::view::View;

/// Prepares a new object; returns what to warn of.
pub(super) fn create(kind: &GroupVersionKind, object: &mut Value) -> Vec<String> {
    drop_disabled(kind, object, None);
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => {
            let labels = object.at("metadata").at("labels").clone();
            select_own_labels(object, &labels);
            return confine(object);
        }
        ("", "ServiceAccount") => keep_names_of_secrets(object),
        _ => {}
    }
    Vec::new()
}

/// Drops what belongs to features that are switched off, unless the old object has it.
pub(super) fn drop_disabled(kind: &GroupVersionKind, object: &mut Value, old: Option<&Value>) {
    const TEMPLATE: &[&str] = &["spec", "template"];
    let old = old.unwrap_or(&Value::Null);
    let template: &[&str] = match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => &[],
        ("", "PodTemplate") => &["template"],
        ("", "ReplicationController")
        | ("apps", "DaemonSet" | "Deployment" | "ReplicaSet")
        | ("batch", "Job") => TEMPLATE,
        ("apps", "StatefulSet") => {
            let path = ["spec", "updateStrategy", "rollingUpdate"];
            if !down(old, &path).has("maxUnavailable") {
                remove(object, &path, "maxUnavailable");
            }
            TEMPLATE
        }
        ("batch", "CronJob") => &["spec", "jobTemplate", "spec", "template"],
        ("", "PersistentVolumeClaim") => return data_source(object, old.at("spec")),
        ("", "Node") => {
            if !old.at("spec").has("configSource") {
                remove(object, &["spec"], "configSource");
            }
            if old.is_null() {
                remove(object, &["status"], "config");
            }
            return;
        }
        _ => return,
    };
    let before = down(old, template).at("spec");
    if let Some(spec) = down_mut(object, template).and_then(|pod| pod.get_mut("spec")) {
        pod(spec, before);
    }
}

/// Keeps what a client leaves out of a status because it knows nothing of it.
pub(super) fn status(kind: &GroupVersionKind, object: &mut Value, old: &Value) {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Node") if !old.at("status").has("config") => remove(object, &["status"], "config"),
        ("", "Pod") => observed_generations(object, old.at("status")),
        _ => {}
    }
}

/// Generations that a status and its conditions, those of one type in their order, have from before.
fn observed_generations(pod: &mut Value, old: &Value) {
    let zero = |value: &Value| value.int("observedGeneration").unwrap_or_default() == 0;
    let keep = |value: &mut Value, old: &Value| {
        if let Some(object) = value.as_object_mut().filter(|_| !zero(old))
            && object.at("observedGeneration").as_i64().unwrap_or_default() == 0
        {
            object.insert("observedGeneration".to_owned(), old.at("observedGeneration").clone());
        }
    };
    let Some(status) = pod.get_mut("status") else { return };
    keep(status, old);
    let mut before: HashMap<&str, VecDeque<&Value>> = HashMap::new();
    for condition in old.items("conditions") {
        before.entry(condition.text("type")).or_default().push_back(condition);
    }
    for condition in items(status, "conditions") {
        let earlier = before.get_mut(condition.text("type")).and_then(VecDeque::pop_front);
        if let Some(earlier) = earlier {
            keep(condition, earlier);
        }
    }
}

fn down<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |value, field| value.at(field))
}

fn down_mut<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, field| value.get_mut(*field))
}

fn remove(value: &mut Value, path: &[&str], field: &str) {
    if let Some(object) = down_mut(value, path).and_then(Value::as_object_mut) {
        object.remove(field);
    }
}

/// The items of a list that may be changed.
fn items<'a>(value: &'a mut Value, list: &str) -> &'a mut [Value] {
    match value.get_mut(list) {
        Some(Value::Array(items)) => items,
        _ => &mut [],
    }
}

fn pod(spec: &mut Value, old: &Value) {
    const SOURCES: [&str; 2] = ["clusterTrustBundle", "podCertificate"];
    let has_source = |source: &str| {
        let volumes = old.items("volumes").iter();
        let mut all = volumes.flat_map(|volume| volume.at("projected").items("sources"));
        all.any(|found| found.has(source))
    };
    for volume in items(spec, "volumes") {
        let Some(projected) = volume.get_mut("projected") else { continue };
        for source in items(projected, "sources").iter_mut().filter_map(Value::as_object_mut) {
            for field in SOURCES {
                if source.contains_key(field) && !has_source(field) {
                    source.remove(field);
                }
            }
        }
    }
    if !old.has("schedulingGroup") {
        remove(spec, &[], "schedulingGroup");
    }
    let stops = |spec: &Value| {
        let mut all = LISTS.iter().flat_map(|list| spec.items(list));
        all.any(|container| container.at("lifecycle").has("stopSignal"))
    };
    if stops(spec) && !stops(old) {
        for list in LISTS {
            for container in items(spec, list) {
                remove(container, &["lifecycle"], "stopSignal");
                if container.at("lifecycle").as_object().is_some_and(Map::is_empty) {
                    remove(container, &[], "lifecycle");
                }
            }
        }
    }
}

/// A claim's two fields for its source show the same; what neither was made for is dropped.
fn data_source(claim: &mut Value, old: &Value) {
    let Some(spec) = claim.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let elsewhere = |reference: &Value| !reference.text("namespace").is_empty();
    if elsewhere(spec.at("dataSourceRef")) && !old.has("dataSourceRef") {
        spec.remove("dataSourceRef");
    }
    let source = spec.at("dataSource");
    let known = matches!(
        (source.text("apiGroup"), source.text("kind")),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    );
    let had = old.has("dataSource") || old.has("dataSourceRef");
    if !had && !spec.has("dataSourceRef") && !known {
        spec.remove("dataSource");
    }
    let copy = |from: &Value| -> Value {
        let fields = from.as_object().into_iter().flatten();
        fields.filter(|(key, _)| *key != "namespace").map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let (source, reference) = (spec.at("dataSource").clone(), spec.at("dataSourceRef").clone());
    if !source.is_null() && reference.is_null() {
        spec.insert("dataSourceRef".to_owned(), copy(&source));
    } else if source.is_null() && !reference.is_null() && !elsewhere(&reference) {
        spec.insert("dataSource".to_owned(), copy(&reference));
    }
}

/// Selectors that take values from the pod's labels get them.
fn select_own_labels(pod: &mut Value, labels: &Value) {
    let Some(spec) = pod.get_mut("spec") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = down_mut(spec, &["affinity", kind]) else { continue };
        for term in items(affinity, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = term.get_mut("podAffinityTerm") {
                merge(term, labels);
            }
        }
        for term in items(affinity, "requiredDuringSchedulingIgnoredDuringExecution") {
            merge(term, labels);
        }
    }
    items(spec, "topologySpreadConstraints").iter_mut().for_each(|term| merge(term, labels));
}

fn merge(term: &mut Value, labels: &Value) {
    let mut more = Vec::new();
    for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in term.items(list).iter().filter_map(Value::as_str).filter(|key| labels.has(key)) {
            more.push(json!({"key": key, "operator": operator, "values": [labels.at(key)]}));
        }
    }
    let selector = term.get_mut("labelSelector").and_then(Value::as_object_mut);
    if let (Some(selector), false) = (selector, more.is_empty()) {
        match selector.get_mut("matchExpressions") {
            Some(Value::Array(expressions)) => expressions.append(&mut more),
            _ => {
                selector.insert("matchExpressions".to_owned(), more.into());
            }
        }
    }
}

/// What only an annotation says of AppArmor moves into the field that replaced it.
fn confine(pod: &mut Value) -> Vec<String> {
    let mut said = Vec::new();
    let annotations = pod.at("metadata").at("annotations").clone();
    let spec = pod.at("spec");
    let keyed =
        annotations.as_object().is_some_and(|all| all.keys().any(|k| k.starts_with(APP_ARMOR)));
    if spec.at("os").text("name") == "windows" || !keyed {
        return said;
    }
    let whole = spec.at("securityContext").at("appArmorProfile").clone();
    let Some(spec) = pod.get_mut("spec") else { return said };
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items(spec, list) {
            let key = format!("{APP_ARMOR}{}", container.text("name"));
            if !annotations.has(&key) || container.at("securityContext").has("appArmorProfile") {
                continue;
            }
            let profile = app_armor_profile(annotations.text(&key));
            if profile.as_ref() == Some(&whole) {
                continue;
            }
            said.push(format!(
                "metadata.annotations[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
            ));
            if let (Some(profile), Some(container)) = (profile, container.as_object_mut()) {
                let context = container.entry("securityContext").or_insert_with(|| json!({}));
                if context.is_null() {
                    *context = json!({});
                }
                context["appArmorProfile"] = profile;
            }
        }
    }
    said
}

/// Of the secrets of an account only the names count.
fn keep_names_of_secrets(account: &mut Value) {
    for secret in items(account, "secrets") {
        let name = secret.at("name").clone();
        *secret = if name.is_null() { json!({}) } else { json!({"name": name}) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(group: &str, kind: &str) -> GroupVersionKind {
        GroupVersionKind::new(group, "v1", kind)
    }

    #[test]
    fn what_is_switched_off_goes_unless_it_was_there() {
        let old = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "c", "lifecycle": {"stopSignal": "SIGTERM"}}]}}}});
        let mut object = old.clone();
        drop_disabled(&kind("apps", "Deployment"), &mut object, Some(&old));
        assert_eq!(object, old);
        drop_disabled(&kind("apps", "Deployment"), &mut object, None);
        let containers = json!([{"name": "c"}]);
        assert_eq!(object["spec"]["template"]["spec"]["containers"], containers);
    }

    #[test]
    fn sources_of_claims_follow_each_other() {
        let claim = kind("", "PersistentVolumeClaim");
        let source = json!({"kind": "PersistentVolumeClaim", "name": "a"});
        let mut object = json!({"spec": {"dataSource": source}});
        create(&claim, &mut object);
        assert_eq!(object["spec"]["dataSourceRef"], source);
        let mut object = json!({"spec": {"dataSource": {"kind": "Other", "name": "a"}}});
        create(&claim, &mut object);
        assert_eq!(object, json!({"spec": {}}));
        let mut object = json!({"spec": {"dataSourceRef": {"kind": "Other", "name": "a"}}});
        create(&claim, &mut object);
        assert_eq!(object["spec"]["dataSource"], json!({"kind": "Other", "name": "a"}));
    }

    #[test]
    fn pods_select_by_their_own_labels() {
        let mut object = json!({
            "metadata": {"labels": {"a": "1"}},
            "spec": {"topologySpreadConstraints": [
                {"labelSelector": {}, "matchLabelKeys": ["a", "b"]}, {"matchLabelKeys": ["a"]}]},
        });
        create(&kind("", "Pod"), &mut object);
        assert_eq!(
            object["spec"]["topologySpreadConstraints"],
            json!([
                {"labelSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]},
                 "matchLabelKeys": ["a", "b"]},
                {"matchLabelKeys": ["a"]}])
        );
    }

    #[test]
    fn observed_generations_stay() {
        let of = kind("", "Pod");
        let condition = |generation: i64| json!({"type": "A", "observedGeneration": generation});
        let old = json!({"status": {"observedGeneration": 3, "conditions": [condition(1), condition(2)]}});
        let mut new =
            json!({"status": {"conditions": [{"type": "A"}, condition(5), {"type": "B"}]}});
        status(&of, &mut new, &old);
        assert_eq!(
            new,
            json!({"status": {"observedGeneration": 3, "conditions": [condition(1), condition(5), {"type": "B"}]}})
        );
    }

    #[test]
    fn annotations_become_fields() {
        let mut object = json!({
            "metadata": {"annotations": {format!("{APP_ARMOR}c"): "localhost/x"}},
            "spec": {"containers": [{"name": "c"}]},
        });
        let said = create(&kind("", "Pod"), &mut object);
        assert!(said[0].contains("deprecated since v1.30"), "{said:?}");
        let profile = &object["spec"]["containers"][0]["securityContext"]["appArmorProfile"];
        assert_eq!(*profile, json!({"type": "Localhost", "localhostProfile": "x"}));
    }
}
