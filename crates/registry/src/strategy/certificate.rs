//! Certificate signing requests: who asks is recorded, never claimed, and conditions are divided
//! between the approval and status subresources.

use serde_json::Value;

use super::Strategy;
use crate::object::{child, set_or_remove};
use crate::request::UserInfo;

/// `certificates.k8s.io/v1 CertificateSigningRequest`.
#[derive(Debug)]
pub(super) struct Request;

impl Strategy for Request {
    fn prepare_create(&self, object: &mut Value, user: &UserInfo, _: bool) {
        let spec = child(object, "spec");
        spec.insert("username".to_owned(), user.name.as_str().into());
        let set = |spec: &mut serde_json::Map<String, Value>, name: &str, value: Value, empty| {
            if empty {
                spec.remove(name);
            } else {
                spec.insert(name.to_owned(), value);
            }
        };
        set(spec, "uid", user.uid.as_str().into(), user.uid.is_empty());
        set(spec, "groups", user.groups.clone().into(), user.groups.is_empty());
        let extra = user.extra.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
        set(spec, "extra", Value::Object(extra), user.extra.is_empty());
        object["status"] = Value::Object(serde_json::Map::new());
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: bool) {
        set_or_remove(object, "spec", &old["spec"]);
        set_or_remove(object, "status", &old["status"]);
    }

    fn prepare_status(&self, object: &mut Value, old: &Value) {
        super::generic::keep_all_but_status(object, old);
        for kind in ["Approved", "Denied"] {
            keep_decision(object, old, kind);
        }
    }

    fn stamp(&self, object: &mut Value, old: &Value, now: &dyn Fn() -> String) {
        let conditions = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
        for condition in conditions.into_iter().flatten() {
            let unset = |condition: &Value, field: &str| condition[field].is_null();
            if unset(condition, "lastUpdateTime") {
                condition["lastUpdateTime"] = now().into();
            }
            if unset(condition, "lastTransitionTime") {
                let same = |before: &&Value| {
                    ["type", "status"].iter().all(|field| before[field] == condition[field])
                };
                let before = old["status"]["conditions"].as_array().into_iter().flatten();
                let mut since = before.filter(same).map(|before| &before["lastTransitionTime"]);
                let since = since.find(|since| !since.is_null());
                condition["lastTransitionTime"] = since.cloned().unwrap_or_else(|| now().into());
            }
        }
    }
}

/// A decision that was made stays as it is; rules refuse that one comes or goes.
fn keep_decision(object: &mut Value, old: &Value, kind: &str) {
    let of_kind = |condition: &&Value| condition["type"] == kind;
    let before: Vec<Value> = conditions(old).iter().filter(of_kind).cloned().collect();
    if conditions(object).iter().filter(of_kind).count() != before.len() {
        return;
    }
    let list = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    let now = list.into_iter().flatten().filter(|condition| condition["type"] == kind);
    for (now, before) in now.zip(before) {
        *now = before;
    }
}

fn conditions(request: &Value) -> &[Value] {
    request["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Restores what an approval may not change: everything but the conditions.
pub(crate) fn prepare_approval(object: &mut Value, old: &Value) {
    let conditions = object["status"]["conditions"].clone();
    set_or_remove(object, "spec", &old["spec"]);
    set_or_remove(object, "status", &old["status"]);
    if !conditions.is_null() {
        child(object, "status").insert("conditions".to_owned(), conditions);
    }
}
