//! Rules of annotations that mean something to pods, and of the fields that replaced them.

use meta::{FieldError, FieldPath};
use serde_json::{Value, json};

use super::tolerated::{LISTS, Tolerated, containers};
use super::{affinity, security};
use crate::rules::at::{At, Errors, relative_path};
use crate::view::View;

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub(in crate::rules) const SECCOMP_CONTAINER: &str =
    "container.seccomp.security.alpha.kubernetes.io/";
pub(in crate::rules) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Checks annotations of a pod or template.
pub(super) fn validate(at: &At<'_>, spec: &Value, tolerated: Tolerated, errors: &mut Errors) {
    let entry = |key: &str| At { value: at.value.at(key), path: at.path.key(key) };
    if at.has(MIRROR) && spec.text("nodeName").is_empty() {
        let text = "must set spec.nodeName if mirror pod annotation is set";
        entry(MIRROR).invalid_text(text, errors);
    }
    if !at.text(TOLERATIONS).is_empty() {
        tolerations(at, tolerated, errors);
    }
    if !tolerated.deletion_cost && bad_deletion_cost(at.value) {
        entry(DELETION_COST).invalid_text("must be a 32bit integer", errors);
    }
    let all = at.value.as_object().into_iter().flatten();
    if at.has(SECCOMP_POD) {
        seccomp(at.text(SECCOMP_POD), at.path.child(SECCOMP_POD), errors);
    }
    for (key, value) in all.clone().filter(|(key, _)| key.starts_with(SECCOMP_CONTAINER)) {
        seccomp(value.as_str().unwrap_or_default(), at.path.child(key), errors);
    }
    for (key, value) in all {
        let Some(name) = key.strip_prefix(APP_ARMOR) else { continue };
        if !containers(spec).any(|container| container.text("name") == name) {
            errors.push(FieldError::invalid(at.path.key(key), name, "container not found"));
        }
        let profile = value.as_str().unwrap_or_default();
        let known = matches!(profile, "" | "runtime/default" | "unconfined");
        if !known && !profile.starts_with("localhost/") {
            let text = format!("invalid AppArmor profile name: {}", meta::quote(profile));
            errors.push(FieldError::invalid(at.path.key(key), profile, text));
        }
    }
}

/// What an annotation about AppArmor says, as the field that replaced it would.
pub(in crate::rules) fn app_armor_profile(annotation: &str) -> Option<Value> {
    Some(match annotation {
        "unconfined" => json!({"type": "Unconfined"}),
        "runtime/default" => json!({"type": "RuntimeDefault"}),
        _ => {
            let name = annotation.strip_prefix("localhost/").filter(|name| !name.is_empty())?;
            let fine = name.trim() == name && name.len() <= security::LONGEST_PROFILE;
            fine.then(|| json!({"type": "Localhost", "localhostProfile": name}))?
        }
    })
}

/// Whether the annotations have a deletion cost that is no number as Go writes it.
pub(super) fn bad_deletion_cost(annotations: &Value) -> bool {
    let cost = annotations.text(DELETION_COST);
    let canonical = cost.parse::<i32>().is_ok()
        && !cost.starts_with('+')
        && (cost == "0" || !cost.starts_with('0'));
    annotations.has(DELETION_COST) && !canonical
}

fn tolerations(at: &At<'_>, tolerated: Tolerated, errors: &mut Errors) {
    let text = at.text(TOLERATIONS);
    match serde_json::from_str::<Vec<serde_json::Map<String, Value>>>(text) {
        Err(error) => {
            let problem = crate::decode::syntax(&error, text.as_bytes());
            errors.push(FieldError::invalid(&at.path, TOLERATIONS, problem));
        }
        Ok(list) => {
            let list = Value::Array(list.into_iter().map(Value::Object).collect());
            let whole = serde_json::json!({ TOLERATIONS: list });
            let whole = At { value: &whole, path: at.path.clone() };
            affinity::tolerations(whole.each(TOLERATIONS), tolerated, errors);
        }
    }
}

fn seccomp(profile: &str, path: FieldPath, errors: &mut Errors) {
    match profile.strip_prefix("localhost/") {
        _ if matches!(profile, "runtime/default" | "docker/default" | "unconfined") => {}
        Some(rest) => relative_path(&At { value: &rest.into(), path }, errors),
        None => errors.push(FieldError::invalid(path, profile, "must be a valid seccomp profile")),
    }
}

/// Checks how annotations of a pod changed.
pub(super) fn validate_update(new: &Value, old: &Value, tolerated: Tolerated, errors: &mut Errors) {
    let root = At::root(new);
    let at = root.field("metadata").field("annotations");
    let was = old.at("metadata").at("annotations");
    let mut complain = |key: &str, verb: &str| {
        let what = match key {
            MIRROR => "mirror pod annotation",
            key if key.starts_with(APP_ARMOR) => "AppArmor annotations",
            _ => return,
        };
        errors.push(FieldError::forbidden(at.path.key(key), format!("may not {verb} {what}")));
    };
    for (key, before) in was.as_object().into_iter().flatten() {
        if at.at(key) != before {
            complain(key, "remove or update");
        }
    }
    for key in at.value.as_object().into_iter().flatten().map(|(key, _)| key) {
        if !was.has(key) {
            complain(key, "add");
        }
    }
    validate(&at, new.at("spec"), tolerated, errors);
}

/// One way of confinement that both an annotation and a field can say.
struct Confinement {
    field: &'static str,
    name: &'static str,
    prefix: &'static str,
    defaults: &'static [&'static str],
    /// Whether containers without the field have that of the pod.
    inherited: bool,
}

const CONFINEMENTS: [Confinement; 2] = [
    Confinement {
        field: "seccompProfile",
        name: "seccomp",
        prefix: SECCOMP_CONTAINER,
        defaults: &["runtime/default", "docker/default"],
        inherited: false,
    },
    Confinement {
        field: "appArmorProfile",
        name: "apparmor",
        prefix: APP_ARMOR,
        defaults: &["runtime/default"],
        inherited: true,
    },
];

/// Annotations and the fields that replaced them must say the same where both are there.
pub(super) fn match_fields(annotations: &Value, spec: &At<'_>, errors: &mut Errors) {
    if annotations.as_object().is_none_or(serde_json::Map::is_empty) {
        return;
    }
    for way in &CONFINEMENTS {
        let whole = spec.field("securityContext");
        let of_pod = whole.field(way.field);
        if way.name == "apparmor" && spec.value.at("os").text("name") == "windows" {
            continue;
        }
        if way.name == "seccomp" && of_pod.value.is_object() && annotations.has(SECCOMP_POD) {
            compare(way, &of_pod, annotations.text(SECCOMP_POD), errors);
        }
        for container in LISTS.iter().flat_map(|list| spec.each(list)) {
            let own = container.field("securityContext").field(way.field);
            let profile = match own.value {
                Value::Null if way.inherited => of_pod.under(own.path),
                _ => own,
            };
            let key = format!("{}{}", way.prefix, container.str_of("name"));
            if profile.value.is_object() && annotations.has(&key) {
                compare(way, &profile, annotations.text(&key), errors);
            }
        }
    }
}

fn compare(way: &Confinement, profile: &At<'_>, annotation: &str, errors: &mut Errors) {
    let Confinement { name, defaults, .. } = way;
    let same = match profile.str_of("type") {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => defaults.contains(&annotation),
        "Localhost" => match annotation.strip_prefix("localhost/") {
            Some(path) if profile.str_of("localhostProfile") != path => {
                let text = format!("{name} profile in annotation and field must match");
                return profile.field("localhostProfile").forbidden(&text, errors);
            }
            found => found.is_some(),
        },
        _ => true,
    };
    if !same {
        let text = format!("{name} type in annotation and field must match");
        profile.field("type").forbidden(&text, errors);
    }
}
