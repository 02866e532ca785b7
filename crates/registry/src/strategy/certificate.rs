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
        super::generic::keep_metadata(object, old, &["labels"]);
        // Approved and Denied belong to the approval subresource.
        let decided = |c: &Value| matches!(c["type"].as_str(), Some("Approved" | "Denied"));
        let conditions =
            |v: &Value| v["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let mut kept: Vec<Value> = conditions(old).into_iter().filter(decided).collect();
        kept.extend(conditions(object).into_iter().filter(|c| !decided(c)));
        if !kept.is_empty() {
            child(object, "status").insert("conditions".to_owned(), kept.into());
        }
    }
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
