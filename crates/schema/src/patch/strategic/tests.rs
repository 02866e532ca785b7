//! Strategic merge patch, one fixture a rule.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::types;

fn patched(kind: (&str, &str), object: Value, patch: Value) -> Result<Value, PatchError> {
    let of = types::by_kind(kind.0, "v1", kind.1).expect("a built-in kind");
    let mut object = object;
    strategic_merge_patch(of, &mut object, patch)?;
    Ok(object)
}

#[track_caller]
fn check_pod(spec: Value, patch: Value, expected: Value) {
    let object = patched(("", "Pod"), json!({"spec": spec}), json!({"spec": patch}))
        .expect("a patch that applies");
    assert_eq!(object["spec"], expected);
}

#[test]
fn merges_containers_by_name_and_ports_by_number() {
    check_pod(
        json!({"containers": [
            {"name": "a", "image": "a:1", "ports": [{"containerPort": 80}]}, {"name": "b", "image": "b:1"}]}),
        json!({"containers": [{"name": "b", "image": "b:2"}, {"name": "a", "ports": [{"containerPort": 80, "name": "w"}]}]}),
        json!({"containers": [
            {"name": "b", "image": "b:2"}, {"name": "a", "image": "a:1", "ports": [{"containerPort": 80, "name": "w"}]}]}),
    );
    check_pod(
        json!({"containers": [{"name": "a"}]}),
        json!({"containers": [{"name": "c", "image": "c", "env": null}]}),
        json!({"containers": [{"name": "c", "image": "c"}, {"name": "a"}]}),
    );
}

#[test]
fn replaces_atomic_lists_and_merges_maps() {
    check_pod(
        json!({"containers": [{"name": "a", "args": ["1", "2"]}], "nodeSelector": {"x": "1", "y": "2"}}),
        json!({"containers": [{"name": "a", "args": ["3"]}], "nodeSelector": {"y": null, "z": "3"}}),
        json!({"containers": [{"name": "a", "args": ["3"]}], "nodeSelector": {"x": "1", "z": "3"}}),
    );
}

#[test]
fn deletes_and_replaces_items() {
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    check_pod(
        two.clone(),
        json!({"containers": [{"name": "a", "$patch": "delete"}]}),
        json!({"containers": [{"name": "b"}]}),
    );
    check_pod(
        two.clone(),
        json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
        json!({"containers": [{"name": "c"}]}),
    );
    check_pod(
        json!({"securityContext": {"runAsUser": 1, "fsGroup": 2}}),
        json!({"securityContext": {"$patch": "replace", "runAsUser": 3}}),
        json!({"securityContext": {"runAsUser": 3}}),
    );
    check_pod(
        json!({"securityContext": {"runAsUser": 1}}),
        json!({"securityContext": {"$patch": "delete"}}),
        json!({"securityContext": {}}),
    );
    check_pod(two, json!({"containers": null}), json!({}));
}

#[test]
fn merges_primitive_lists_as_sets() {
    let of = |patch| {
        patched(("", "Namespace"), json!({"metadata": {"finalizers": ["a", "b", "c"]}}), patch)
    };
    assert_eq!(
        of(json!({"metadata": {"finalizers": ["d", "b"]}})).expect("applies")["metadata"]["finalizers"],
        json!(["d", "a", "b", "c"])
    );
    assert_eq!(
        of(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "c"]}}))
            .expect("applies")["metadata"],
        json!({"finalizers": ["b"]})
    );
    assert_eq!(
        of(json!({"metadata": {"$setElementOrder/finalizers": ["c", "a"]}})).expect("applies")["metadata"]
            ["finalizers"],
        json!(["b", "c", "a"])
    );
}

#[test]
fn arranges_by_set_element_order() {
    check_pod(
        json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "server"}]}),
        json!({
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "new"}],
            "containers": [{"name": "new", "image": "n"}]
        }),
        json!({"containers": [{"name": "b"}, {"name": "a"}, {"name": "new", "image": "n"}, {"name": "server"}]}),
    );
    // New containers take the places of deleted ones.
    check_pod(
        json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "d"}]}),
        json!({
            "$setElementOrder/containers": [{"name": "b"}, {"name": "c"}],
            "containers": [{"name": "c"}, {"name": "a", "$patch": "delete"}]
        }),
        json!({"containers": [{"name": "b"}, {"name": "d"}, {"name": "c"}]}),
    );
    let wrong = patched(
        ("", "Pod"),
        json!({"spec": {}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}}),
    );
    assert!(matches!(wrong, Err(PatchError::Malformed(_))));
}

#[test]
fn retains_keys() {
    let object =
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let of = |patch| {
        patched(("apps", "Deployment"), object.clone(), json!({"spec": {"strategy": patch}}))
    };
    assert_eq!(
        of(json!({"$retainKeys": ["type"], "type": "Recreate"})).expect("applies")["spec"]["strategy"],
        json!({"type": "Recreate"})
    );
    assert!(matches!(
        of(json!({"$retainKeys": [], "type": "Recreate"})),
        Err(PatchError::Malformed(_))
    ));
    check_pod(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
    );
}

#[test]
fn refuses_items_without_merge_key() {
    let patch = json!({"spec": {"containers": [{"image": "a"}]}});
    let refused = patched(("", "Pod"), json!({"spec": {"containers": [{"name": "a"}]}}), patch);
    let text = "map: {\"image\":\"a\"} does not contain declared merge key: name";
    assert_eq!(refused, Err(PatchError::Failed(text.to_owned())));
}

#[test]
fn drops_directives_where_nothing_is_merged() {
    check_pod(
        json!({}),
        json!({
            "$setElementOrder/containers": [{"name": "a"}],
            "containers": [{"name": "a", "$setElementOrder/env": [{"name": "E"}], "env": [{"name": "E"}]}],
            "volumes": [{"name": "gone", "$patch": "delete"}],
            "nodeSelector": {"a": null}
        }),
        json!({"containers": [{"name": "a", "env": [{"name": "E"}]}], "volumes": [], "nodeSelector": {}}),
    );
}

proptest! {
    /// Patching an object with parts of itself changes nothing but order, and applying twice equals once.
    #[test]
    fn is_idempotent(names in prop::collection::btree_set("[a-e]", 0..5), patch in prop::collection::vec("[a-g]", 0..5)) {
        let object = json!({"spec": {"containers": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()}});
        let items: Vec<Value> = patch.iter().map(|n| json!({"name": n, "image": "i"})).collect();
        let patch = json!({"spec": {"containers": items}});
        let once = patched(("", "Pod"), object, patch.clone()).expect("applies");
        let twice = patched(("", "Pod"), once.clone(), patch).expect("applies");
        prop_assert_eq!(once, twice);
    }
}

#[test]
fn long_lists_are_merged_in_passing() {
    let names = |prefix: &str| -> Vec<Value> {
        (0..20_000).map(|number| format!("{prefix}/{number}").into()).collect()
    };
    let of = types::by_kind("", "v1", "ConfigMap").expect("a known kind");
    let mut object = json!({"metadata": {"finalizers": names("a")}});
    let patch = json!({"metadata": {"finalizers": names("b")}});
    // With a search per item this takes minutes.
    strategic_merge_patch(of, &mut object, patch).expect("a patch that applies");
    assert_eq!(object["metadata"]["finalizers"].as_array().map(Vec::len), Some(40_000));
}
