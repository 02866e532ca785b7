//! Policies: what matches, what is refused.

use super::*;
use crate::identity::authenticated;

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, users: ["system:kube-proxy"], verbs: [watch], resources: [{group: "", resources: [endpoints, services]}]}
- {level: None, userGroups: ["system:authenticated"], nonResourceURLs: ["/api*", /version]}
- {level: Request, resources: [{group: "", resources: [configmaps]}], namespaces: [kube-system], omitManagedFields: false}
- {level: Metadata, resources: [{group: "", resources: [secrets, "pods/*"]}], omitStages: [Panic]}
- {level: RequestResponse, resources: [{group: apps, resources: [deployments], resourceNames: [web]}, {group: "*", resources: ["*/scale"]}]}
- {level: Metadata, resources: [{group: batch}]}
"#;

fn check(user: &str, verb: &str, what: &str, namespace: &str, expected: Level) {
    let policy = Policy::parse(POLICY).expect("a policy");
    let user = authenticated(user, [""; 0]);
    let (group, rest) = what.split_once(':').unwrap_or(("", what));
    let (place, name) = rest.split_once('=').unwrap_or((rest, ""));
    let (resource, subresource) = place.split_once('/').unwrap_or((place, ""));
    let request = if what.starts_with('/') {
        Attributes { verb, path: what, ..Attributes::default() }
    } else {
        let resource_request = true;
        Attributes {
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
            resource_request,
            ..Attributes::default()
        }
    };
    assert_eq!(policy.judge(&user, &request).level, expected, "{what}");
}

#[test]
fn the_first_rule_that_matches_counts() {
    check("system:kube-proxy", "watch", "services", "", Level::None);
    check("jane", "get", "/apis/x", "", Level::None);
    check("jane", "get", "/version", "", Level::None);
    check("jane", "get", "/metrics", "", Level::None);
    check("jane", "get", "configmaps", "kube-system", Level::Request);
    check("jane", "get", "configmaps", "default", Level::None);
    check("jane", "get", "pods/log=a", "default", Level::Metadata);
    check("jane", "get", "pods=a", "default", Level::Metadata);
    check("jane", "get", "services=a", "default", Level::None);
    check("jane", "get", "apps:deployments=web", "default", Level::RequestResponse);
    check("jane", "get", "apps:deployments=other", "default", Level::None);
    check("jane", "update", "apps:replicasets/scale=x", "default", Level::RequestResponse);
    check("jane", "list", "batch:jobs", "default", Level::Metadata);
}

#[test]
fn stages_add_up_and_managed_fields_are_overridden() {
    let policy = Policy::parse(POLICY).expect("a policy");
    let user = authenticated("jane", [""; 0]);
    let ask = |resource, namespace| {
        let request = Attributes {
            verb: "get",
            resource,
            namespace,
            resource_request: true,
            ..Attributes::default()
        };
        policy.judge(&user, &request)
    };
    let secrets = ask("secrets", "default");
    assert_eq!(secrets.omit_stages, [Stage::Panic, Stage::RequestReceived]);
    assert!(secrets.omit_managed_fields);
    assert!(!ask("configmaps", "kube-system").omit_managed_fields);
}

#[test]
fn wrong_policies_are_refused_with_a_reason() {
    let refused = |rules: &str, why: &str| {
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: {rules}\n");
        let error = Policy::parse(&text).expect_err("refused");
        assert!(error.contains(why), "{error}");
    };
    refused("[]", "0 rules");
    refused("[{level: All}]", "unknown variant `All`");
    refused("[{verbs: [get]}]", "missing field `level`");
    refused("[{level: None, omitStages: [Never]}]", "Never");
    refused("[{level: None, user: [a]}]", "unknown field `user`");
    refused(
        "[{level: None, nonResourceURLs: [a]}]",
        "rules[0].nonResourceURLs[0]: non-resource URL rules must begin",
    );
    refused("[{level: None, nonResourceURLs: [/a*b]}]", "must be the final character");
    refused("[{level: None, nonResourceURLs: [/a], namespaces: [b]}]", "cannot apply to both");
    refused("[{level: None, resources: [{group: apps/v1}]}]", "resources.group");
    assert!(Policy::parse("kind: Policy\nrules: [{level: None}]").is_err());
}
