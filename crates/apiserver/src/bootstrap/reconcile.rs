//! What start-up adds to a default role or binding that exists: rules and subjects that are missing, never
//! anything removed (as upstream does); and what aggregated roles hold.

use meta::Status;
use serde_json::{Value, json};

use super::{Place, Writer, policy::AUTOUPDATE, policy::Default, policy::GROUP};
use crate::authz::{
    policy::{Policy, Role},
    rule::{Rule, compact, uncovered},
};

/// Where a default object is kept.
pub(super) fn place(default: &Default) -> Place<'_> {
    Place {
        group: GROUP,
        version: "v1",
        resource: default.resource,
        namespace: &default.namespace,
        name: &default.name,
    }
}

/// Fills the rules of aggregated roles from the defaults they select, so that a role shows what it grants from
/// the first moment.
pub(super) fn with_aggregates(mut defaults: Vec<Default>) -> Vec<Default> {
    let roles: Vec<Role> = defaults
        .iter()
        .filter(|default| default.resource == "clusterroles")
        .filter_map(|default| serde_json::from_value(default.object.clone()).ok())
        .collect();
    let policy = Policy::compile(roles, Vec::new());
    for default in &mut defaults {
        if !default.object["aggregationRule"].is_null()
            && let Some(rules) = policy.cluster_role(&default.name)
        {
            default.object["rules"] = json!(rules);
        }
    }
    defaults
}

/// Whether a stored binding grants another role than the wanted one, and may be corrected.
pub(super) fn leads_elsewhere(stored: &Value, wanted: &Value) -> bool {
    let kept = stored["metadata"]["annotations"][AUTOUPDATE] == "false";
    !kept && !wanted["roleRef"].is_null() && stored["roleRef"] != wanted["roleRef"]
}

/// Writes into every aggregated role the rules that it gathers, for all who read it.
pub(crate) async fn fill_aggregates(
    writer: &Writer,
    policy: &Policy,
) -> Result<(), (String, Status)> {
    for stored in writer.list(GROUP, "clusterroles") {
        let name = stored["metadata"]["name"].as_str().unwrap_or_default();
        let Some(rules) = policy.cluster_role(name).filter(|_| aggregated(&stored)) else {
            continue;
        };
        let place =
            Place { group: GROUP, version: "v1", resource: "clusterroles", namespace: "", name };
        let filled = |stored: &Value| {
            let held: Vec<Rule> =
                serde_json::from_value(stored["rules"].clone()).unwrap_or_default();
            (aggregated(stored) && held != rules).then(|| {
                let mut filled = stored.clone();
                filled["rules"] = json!(rules);
                filled
            })
        };
        if let Some(wanted) = filled(&stored) {
            let written = writer.ensure(place, &wanted, filled).await;
            written.map_err(|status| (name.to_owned(), status))?;
        }
    }
    Ok(())
}

fn aggregated(role: &Value) -> bool {
    !role["aggregationRule"].is_null()
}

/// The stored object with what is missing of the wanted one, or none if nothing is.
pub(super) fn merged(stored: &Value, wanted: &Value) -> Option<Value> {
    if stored["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    let mut merged = stored.clone();
    for field in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][field].as_object().into_iter().flatten() {
            if merged["metadata"][field][key].is_null() {
                merged["metadata"][field][key] = value.clone();
            }
        }
    }
    let rules = |object: &Value| -> Vec<Rule> {
        serde_json::from_value(object["rules"].clone()).unwrap_or_default()
    };
    let mut held = rules(stored);
    let missing = uncovered(&held, &rules(wanted));
    if merged["aggregationRule"].is_null() && aggregated(wanted) {
        merged["aggregationRule"] = wanted["aggregationRule"].clone();
    }
    // What aggregated roles hold is gathered, not added.
    if !missing.is_empty() && !aggregated(&merged) {
        held.extend(compact(missing));
        merged["rules"] = json!(held);
    }
    for subject in wanted["subjects"].as_array().into_iter().flatten() {
        let known = stored["subjects"].as_array().is_some_and(|list| list.contains(subject));
        if !known {
            match merged["subjects"].as_array_mut() {
                Some(list) => list.push(subject.clone()),
                None => merged["subjects"] = json!([subject]),
            }
        }
    }
    (merged != *stored).then_some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::policy;

    #[test]
    fn rules_are_added_and_never_taken() {
        let wanted = json!({"metadata": {"labels": {"a": "1"}},
            "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]});
        let stored = json!({"metadata": {"name": "x"},
            "rules": [{"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]}]});
        let merged = merged(&stored, &wanted).expect("a change");
        assert_eq!(merged["rules"].as_array().map(Vec::len), Some(2));
        assert_eq!(merged["rules"][1]["verbs"], json!(["list"]));
        assert_eq!(merged["metadata"]["labels"]["a"], "1");
        assert!(super::merged(&merged, &wanted).is_none());
        let binding = |role: &str| json!({"roleRef": {"name": role}, "metadata": {}});
        assert!(leads_elsewhere(&binding("a"), &binding("b")));
        assert!(!leads_elsewhere(&binding("a"), &binding("a")));
        let frozen = json!({"metadata": {"annotations": {AUTOUPDATE: "false"}}});
        assert!(super::merged(&frozen, &wanted).is_none());
    }

    #[test]
    fn aggregated_roles_show_their_rules() {
        let defaults = with_aggregates(policy::defaults());
        let count = |name: &str| {
            let role =
                defaults.iter().find(|one| one.resource == "clusterroles" && one.name == name);
            role.and_then(|role| role.object["rules"].as_array()).map_or(0, Vec::len)
        };
        assert!(
            count("view") > 5 && count("edit") > count("view") && count("admin") > count("edit")
        );
    }
}
