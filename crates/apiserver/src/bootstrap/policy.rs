//! The default roles and bindings, read from the checked-in tables.
//!
//! A table has a line for each object: kind, `namespace/name` or name, then `+label=value` for labels beside
//! the usual one, `*label=value` for aggregation selectors, and for bindings the role (`ClusterRole/name`) and
//! the subjects (`User=name`, `ServiceAccount=namespace/name`). Indented lines are rules:
//! `verbs|groups|resources|names|urls`, comma-separated, the core group written `core`.

use serde_json::{Map, Value, json};

use crate::authz::rule::Rule;

/// Upstream's defaults, and what skiff's own parts need beyond them.
const TABLES: [&str; 2] =
    [include_str!("../../facts/rbac.txt"), include_str!("../../facts/skiff-rbac.txt")];
pub(super) const GROUP: &str = "rbac.authorization.k8s.io";
/// The annotation that lets start-up extend an object again.
pub(super) const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// A default object and where it goes.
#[derive(Debug)]
pub(super) struct Default {
    /// Plural resource name.
    pub(super) resource: &'static str,
    /// Empty for cluster-scoped objects.
    pub(super) namespace: String,
    /// Its name.
    pub(super) name: String,
    /// The whole object.
    pub(super) object: Value,
}

/// All default objects.
pub(super) fn defaults() -> Vec<Default> {
    let mut objects: Vec<Default> = Vec::new();
    for line in TABLES.into_iter().flat_map(str::lines).filter(|line| !line.starts_with('#')) {
        match line.strip_prefix('\t') {
            None => objects.extend(header(line)),
            Some(line) => {
                if let Some(rules) =
                    objects.last_mut().and_then(|last| last.object["rules"].as_array_mut())
                {
                    rules.push(json!(rule(line)));
                }
            }
        }
    }
    objects
}

/// What every kubelet may do: the rules of the default role `system:node`.
pub(crate) fn node_rules() -> Vec<Rule> {
    let node = defaults()
        .into_iter()
        .find(|one| one.resource == "clusterroles" && one.name == "system:node");
    node.and_then(|node| serde_json::from_value(node.object["rules"].clone()).ok())
        .unwrap_or_default()
}

fn header(line: &str) -> Option<Default> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    let (namespace, name) = match words.next()? {
        full if kind == "Role" || kind == "RoleBinding" => full.split_once('/')?,
        name => ("", name),
    };
    let resource = match kind {
        "ClusterRole" => "clusterroles",
        "Role" => "roles",
        "ClusterRoleBinding" => "clusterrolebindings",
        _ => "rolebindings",
    };
    let mut labels = Map::new();
    labels.insert("kubernetes.io/bootstrapping".into(), "rbac-defaults".into());
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}}
    });
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    if kind.ends_with("Binding") {
        object["subjects"] = json!([]);
    } else {
        object["rules"] = json!([]);
    }
    for word in words {
        if let Some((key, value)) = word.strip_prefix('+').and_then(|label| label.split_once('=')) {
            labels.insert(key.into(), value.into());
        } else if let Some((key, value)) =
            word.strip_prefix('*').and_then(|label| label.split_once('='))
        {
            object["aggregationRule"] =
                json!({"clusterRoleSelectors": [{"matchLabels": {key: value}}]});
        } else if let Some((kind, subject)) = word.split_once('=') {
            let subject = self::subject(kind, subject);
            object["subjects"].as_array_mut()?.push(subject);
        } else if let Some((kind, role)) = word.split_once('/') {
            object["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": role});
        }
    }
    object["metadata"]["labels"] = Value::Object(labels);
    Some(Default { resource, namespace: namespace.into(), name: name.into(), object })
}

fn subject(kind: &str, name: &str) -> Value {
    match (kind, name.split_once('/')) {
        ("ServiceAccount", Some((namespace, name))) => {
            json!({"kind": kind, "name": name, "namespace": namespace})
        }
        _ => json!({"apiGroup": GROUP, "kind": kind, "name": name}),
    }
}

fn rule(line: &str) -> Rule {
    let mut fields = line.split('|').map(|field| -> Vec<String> {
        let words = field.split(',').filter(|word| !word.is_empty());
        words.map(|word| if word == "core" { String::new() } else { word.to_owned() }).collect()
    });
    let mut next = || fields.next().unwrap_or_default();
    Rule {
        verbs: next(),
        api_groups: next(),
        resources: next(),
        resource_names: next(),
        non_resource_urls: next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_gives_whole_objects() {
        let defaults = defaults();
        let find = |resource: &str, name: &str| {
            let found = defaults.iter().find(|one| one.resource == resource && one.name == name);
            &found.unwrap_or_else(|| panic!("{resource} {name}")).object
        };
        let admin = find("clusterroles", "cluster-admin");
        assert_eq!(
            admin["rules"],
            json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
                   {"verbs": ["*"], "nonResourceURLs": ["*"]}])
        );
        let edit = find("clusterroles", "edit");
        assert_eq!(
            edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-admin"],
            "true"
        );
        assert!(edit["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"].is_object());
        let binding = find("clusterrolebindings", "cluster-admin");
        assert_eq!(binding["subjects"][0]["name"], "system:masters");
        assert_eq!(binding["roleRef"]["name"], "cluster-admin");
        let role = find("roles", "extension-apiserver-authentication-reader");
        assert_eq!(role["metadata"]["namespace"], "kube-system");
        assert!(defaults.len() > 120, "{}", defaults.len());
        assert!(!node_rules().is_empty());
    }
}
