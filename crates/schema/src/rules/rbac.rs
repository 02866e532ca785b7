//! Rules of roles and role bindings.

use meta::{FieldError, Selector, names};
use serde_json::{Value, json};

use super::at::{At, Errors};
use super::selector::{Lenient, is_invalid, label_selector_with};
use super::{Hooks, metadata};
use crate::view::{View, same};

const GROUP: &str = "rbac.authorization.k8s.io";

const BASE: Hooks = Hooks { name: metadata::path_segment, ..Hooks::BASE };

/// `rbac.authorization.k8s.io/v1 Role`.
pub(super) const ROLE: Hooks = Hooks {
    validate: |role, errors| rules(role, true, errors),
    validate_update: |new, _, errors| rules(new, true, errors),
    ..BASE
};

/// `rbac.authorization.k8s.io/v1 ClusterRole`.
pub(super) const CLUSTER_ROLE: Hooks = Hooks {
    validate: |role, errors| cluster_role(role, Lenient::default(), errors),
    validate_update: |new, old, errors| {
        let selectors = old.at("aggregationRule").items("clusterRoleSelectors");
        let values = selectors.iter().any(is_invalid);
        cluster_role(new, Lenient { values, ..Lenient::default() }, errors);
    },
    ..BASE
};

/// `rbac.authorization.k8s.io/v1 RoleBinding`.
pub(super) const ROLE_BINDING: Hooks = Hooks {
    validate: |binding, errors| self::binding(binding, true, errors),
    validate_update: |new, old, errors| {
        binding(new, true, errors);
        unchanged_role(new, old, errors);
    },
    ..BASE
};

/// `rbac.authorization.k8s.io/v1 ClusterRoleBinding`.
pub(super) const CLUSTER_ROLE_BINDING: Hooks = Hooks {
    validate: |binding, errors| self::binding(binding, false, errors),
    validate_update: |new, old, errors| {
        binding(new, false, errors);
        unchanged_role(new, old, errors);
    },
    ..BASE
};

fn cluster_role(role: &Value, lenient: Lenient, errors: &mut Errors) {
    rules(role, false, errors);
    let Some(aggregation) = At::root(role).some("aggregationRule") else { return };
    if aggregation.items("clusterRoleSelectors").is_empty() {
        let text = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        aggregation.field("clusterRoleSelectors").required(text, errors);
    }
    for selector in aggregation.each("clusterRoleSelectors") {
        label_selector_with(&selector, lenient, errors);
        if Selector::from_label_selector(selector.value).is_err() {
            let text = "invalid label selector.";
            errors.push(FieldError::invalid(&selector.path, Value::Null, text));
        }
    }
}

fn rules(role: &Value, namespaced: bool, errors: &mut Errors) {
    for rule in At::root(role).each("rules") {
        if rule.items("verbs").is_empty() {
            rule.field("verbs").required("verbs must contain at least one value", errors);
        }
        let any = |list: &str| !rule.items(list).is_empty();
        if any("nonResourceURLs") {
            let urls = rule.field("nonResourceURLs");
            if namespaced {
                urls.invalid("namespaced rules cannot apply to non-resource URLs", errors);
            }
            if any("apiGroups") || any("resources") || any("resourceNames") {
                urls.invalid(
                    "rules cannot apply to both regular resources and non-resource URLs",
                    errors,
                );
            }
            continue;
        }
        if !any("apiGroups") {
            rule.field("apiGroups")
                .required("resource rules must supply at least one api group", errors);
        }
        if !any("resources") {
            rule.field("resources")
                .required("resource rules must supply at least one resource", errors);
        }
    }
}

fn binding(binding: &Value, namespaced: bool, errors: &mut Errors) {
    let root = At::root(binding);
    let role = root.field("roleRef");
    if role.str_of("apiGroup") != GROUP {
        role.field("apiGroup").unsupported(&[GROUP], errors);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.str_of("kind")) {
        role.field("kind").unsupported(kinds, errors);
    }
    role.field("name").required_name(names::is_path_segment, errors);
    for subject in root.each("subjects") {
        self::subject(&subject, namespaced, errors);
    }
}

fn subject(subject: &At<'_>, namespaced: bool, errors: &mut Errors) {
    let (name, group) = (subject.field("name"), subject.field("apiGroup"));
    if name.str().is_empty() {
        name.required("", errors);
    }
    match subject.str_of("kind") {
        "ServiceAccount" => {
            if !name.str().is_empty() {
                name.check(names::is_dns1123_subdomain, errors);
            }
            if !group.str().is_empty() {
                group.unsupported(&[""], errors);
            }
            if !namespaced && subject.str_of("namespace").is_empty() {
                subject.field("namespace").required("", errors);
            }
        }
        "User" | "Group" => {
            if group.str() != GROUP {
                group.unsupported(&[GROUP], errors);
            }
        }
        _ => subject.field("kind").unsupported(&["ServiceAccount", "User", "Group"], errors),
    }
}

fn unchanged_role(new: &Value, old: &Value, errors: &mut Errors) {
    let role = new.at("roleRef");
    if !same(role, old.at("roleRef")) {
        // Upstream shows the fields by their names in Go.
        let shown = json!({
            "APIGroup": role.text("apiGroup"), "Kind": role.text("kind"), "Name": role.text("name"),
        });
        errors.push(FieldError::invalid("roleRef", shown, "cannot change roleRef"));
    }
}
