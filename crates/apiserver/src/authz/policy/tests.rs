//! What a policy grants, and why.

use super::*;
use crate::identity;
use serde_json::json;

fn policy() -> Policy {
    let roles = json!([
        {"metadata": {"name": "reader", "labels": {"agg": "view"}},
         "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]},
        {"metadata": {"name": "view", "labels": {"agg": "admin"}}, "rules": null,
         "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"agg": "view"}}]}},
        {"metadata": {"name": "admin"}, "rules": null,
         "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"agg": "admin"}}]}},
        {"metadata": {"name": "local", "namespace": "a"},
         "rules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"]}]}
    ]);
    let bindings = json!([
        {"metadata": {"name": "all"}, "roleRef": {"kind": "ClusterRole", "name": "admin"},
         "subjects": [{"kind": "Group", "name": "team"}]},
        {"metadata": {"name": "here", "namespace": "a"}, "roleRef": {"kind": "Role", "name": "local"},
         "subjects": [{"kind": "ServiceAccount", "name": "robot"}]},
        {"metadata": {"name": "gone"}, "roleRef": {"kind": "ClusterRole", "name": "missing"},
         "subjects": [{"kind": "User", "name": "eve"}]}
    ]);
    Policy::compile(
        serde_json::from_value(roles).expect("roles"),
        serde_json::from_value(bindings).expect("bindings"),
    )
}

fn ask<'a>(verb: &'a str, resource: &'a str, namespace: &'a str) -> Attributes<'a> {
    Attributes { verb, resource, namespace, resource_request: true, ..Attributes::default() }
}

#[test]
fn aggregation_reaches_through_two_levels() {
    let policy = policy();
    let user = identity::authenticated("jane", ["team"]);
    let reason = policy.allows(&user, &ask("get", "pods", "x")).expect("allowed");
    assert_eq!(
        reason.text(&user),
        r#"RBAC: allowed by ClusterRoleBinding "all" of ClusterRole "admin" to Group "team""#
    );
    assert!(policy.allows(&user, &ask("list", "pods", "x")).is_none());
    let eve = identity::authenticated("eve", [""; 0]);
    assert_eq!(
        policy.broken(&eve, &ask("list", "pods", "x")),
        "RBAC: clusterrole.rbac.authorization.k8s.io \"missing\" not found"
    );
}

#[test]
fn aggregated_roles_hold_what_they_gather_and_nothing_else() {
    let roles = json!([
        {"metadata": {"name": "a", "labels": {"to": "x"}}, "rules": [{"verbs": ["get"]}]},
        {"metadata": {"name": "x", "labels": {"to": "y"}}, "rules": [{"verbs": ["own"]}],
         "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "x"}}, {"matchLabels": {"to": "y"}}]}},
        {"metadata": {"name": "y", "labels": {"to": "y"}},
         "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "y"}}]}}
    ]);
    let policy = Policy::compile(serde_json::from_value(roles).expect("roles"), Vec::new());
    let verbs = |name: &str| -> Vec<String> {
        policy.cluster_role(name).expect("a role").iter().flat_map(|r| r.verbs.clone()).collect()
    };
    assert_eq!((verbs("x"), verbs("y")), (vec!["get".to_owned()], vec!["get".to_owned()]));
}

#[test]
fn a_role_binding_counts_only_in_its_namespace() {
    let policy = policy();
    let robot = identity::service_account("a", "robot", "");
    let reason = policy.allows(&robot, &ask("delete", "secrets", "a")).expect("allowed");
    assert_eq!(
        reason.text(&robot),
        r#"RBAC: allowed by RoleBinding "here/a" of Role "local" to ServiceAccount "robot/a""#
    );
    assert!(policy.allows(&robot, &ask("delete", "secrets", "b")).is_none());
    assert!(policy.allows(&robot, &ask("delete", "secrets", "")).is_none());
    assert!(
        policy.allows(&identity::authenticated("eve", [""; 0]), &ask("get", "pods", "")).is_none()
    );
}
