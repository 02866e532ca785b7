//! Devices: what is no longer allocated has no state, and taints know since when they are there.

use std::collections::HashSet;

use serde_json::Value;

use super::{Strategy, generic};

/// `resource.k8s.io/v1 ResourceClaim`.
#[derive(Debug)]
pub(super) struct Claim;

/// What tells a device, or a share of one, from others.
type Device = [Value; 4];

fn device(at: &Value) -> Device {
    ["driver", "pool", "device", "shareID"].map(|field| at[field].clone())
}

fn allocated(claim: &Value) -> HashSet<Device> {
    let results = claim["status"]["allocation"]["devices"]["results"].as_array();
    results.into_iter().flatten().map(device).collect()
}

impl Strategy for Claim {
    fn prepare_status(&self, object: &mut Value, old: &Value) {
        generic::keep_all_but_status(object, old);
        let (before, now) = (allocated(old), allocated(object));
        let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else { return };
        let Some(devices) = status.get_mut("devices").and_then(Value::as_array_mut) else { return };
        devices.retain(|state| {
            let device = device(state);
            !before.contains(&device) || now.contains(&device)
        });
        if devices.is_empty() {
            status.remove("devices");
        }
    }
}

/// `resource.k8s.io/v1 ResourceSlice`.
#[derive(Debug)]
pub(super) struct Slice;

impl Strategy for Slice {
    fn stamp(&self, object: &mut Value, _: &Value, now: &dyn Fn() -> String) {
        let devices = object.pointer_mut("/spec/devices").and_then(Value::as_array_mut);
        for device in devices.into_iter().flatten() {
            let taints = device.get_mut("taints").and_then(Value::as_array_mut);
            for taint in taints.into_iter().flatten().filter_map(Value::as_object_mut) {
                if taint.get("timeAdded").is_none_or(Value::is_null) {
                    taint.insert("timeAdded".to_owned(), now().into());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_device_that_is_given_back_loses_its_state() {
        let result = json!({"driver": "d", "pool": "p", "device": "one"});
        let claim = |results: Value, devices: Value| json!({"status": {"allocation": {"devices": {"results": results}}, "devices": devices}});
        let old = claim(json!([result]), json!([result]));
        let mut new = claim(json!([]), json!([result]));
        Claim.prepare_status(&mut new, &old);
        assert_eq!(new["status"].get("devices"), None);
        let mut kept = old.clone();
        Claim.prepare_status(&mut kept, &old);
        assert_eq!(kept["status"], old["status"]);
    }

    #[test]
    fn taints_are_dated_once() {
        let mut slice = json!({"spec": {"devices": [{"taints": [{"key": "k"}]}]}});
        Slice.stamp(&mut slice, &Value::Null, &|| "now".to_owned());
        Slice.stamp(&mut slice, &Value::Null, &|| "later".to_owned());
        assert_eq!(slice["spec"]["devices"][0]["taints"][0]["timeAdded"], "now");
    }
}
