//! Rules of environment variables and where they come from.

use meta::{FieldError, names};
use serde_json::json;

use super::security::qualified_name;
use crate::rules::at::{At, Errors, no_backsteps};

/// Fields of a pod that a variable may show.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of a pod that a file may show.
pub(in crate::rules) const FILE_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// Fields of a pod that the downward API knows at all.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Checks `env`.
pub(super) fn variables(container: &At<'_>, errors: &mut Errors) {
    for variable in container.each("env") {
        variable.field("name").required_name(names::is_env_var_name, errors);
        if let Some(from) = variable.some("valueFrom") {
            value_from(&from, !variable.str_of("value").is_empty(), errors);
        }
    }
}

fn value_from(from: &At<'_>, has_value: bool, errors: &mut Errors) {
    let mut sources = 0;
    if let Some(field) = from.some("fieldRef") {
        sources += 1;
        field_selector(&field, ENV_FIELDS, errors);
    }
    if let Some(resource) = from.some("resourceFieldRef") {
        sources += 1;
        resource_selector(&resource, false, errors);
    }
    for kind in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(key) = from.some(kind) {
            sources += 1;
            key.field("name").check(names::is_dns1123_subdomain, errors);
            key.field("key").required_name(names::is_config_map_key, errors);
        }
    }
    if let Some(file) = from.some("fileKeyRef") {
        sources += 1;
        file.field("key").required_name(names::is_env_var_name, errors);
        file.field("volumeName").required_name(names::is_dns1123_label, errors);
        match file.str_of("path") {
            "" => file.field("path").required("", errors),
            _ => no_backsteps(&file.field("path"), errors),
        }
    }
    let mut complain = |text: &str| errors.push(FieldError::invalid(&from.path, "", text));
    match sources {
        0 => complain(
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        _ if has_value => complain("may not be specified when `value` is not empty"),
        1 => {}
        _ => complain("may not have more than one field specified at a time"),
    }
}

/// Checks a reference to a field of the pod.
pub(in crate::rules) fn field_selector(at: &At<'_>, allowed: &[&str], errors: &mut Errors) {
    for field in ["apiVersion", "fieldPath"] {
        if at.str_of(field).is_empty() {
            return at.field(field).required("", errors);
        }
    }
    let path = at.field("fieldPath");
    let text = path.str();
    let subscript = text.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    let subscript = subscript.filter(|(list, _)| !list.is_empty());
    let unknown = match subscript {
        _ if at.str_of("apiVersion") != "v1" => {
            Some(format!("unsupported pod version: {}", at.str_of("apiVersion")))
        }
        Some(("metadata.annotations" | "metadata.labels", _)) => None,
        Some(_) => Some(format!("field label does not support subscript: {text}")),
        None if text == "spec.host" || KNOWN_FIELDS.contains(&text) => None,
        None => Some(format!("field label not supported: {text}")),
    };
    if let Some(problem) = unknown {
        return path.invalid(format!("error converting fieldPath: {problem}"), errors);
    }
    match subscript {
        Some((list, key)) => {
            let key =
                if list == "metadata.annotations" { key.to_lowercase() } else { key.to_owned() };
            qualified_name(&At { value: &json!(key), path: at.path.clone() }, errors);
        }
        None if !allowed.contains(&text) => path.unsupported(allowed, errors),
        None => {}
    }
}

/// Checks a reference to a container's resource; in a volume it must name the container.
pub(in crate::rules) fn resource_selector(at: &At<'_>, volume: bool, errors: &mut Errors) {
    let resource = at.field("resource");
    let huge = |name: &str| {
        name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-")
    };
    if volume && at.str_of("containerName").is_empty() {
        at.field("containerName").required("", errors);
    } else if resource.str().is_empty() {
        resource.required("", errors);
    } else if !RESOURCES.contains(&resource.str()) && !huge(resource.str()) {
        resource.unsupported(RESOURCES, errors);
    }
    divisor(at, resource.str(), errors);
}

fn divisor(at: &At<'_>, resource: &str, errors: &mut Errors) {
    const BYTES: &[&str] =
        &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let divisor = at.str_of("divisor");
    if matches!(divisor, "" | "0") {
        return;
    }
    let bytes = "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the";
    let text = match resource.split_once('.').map_or(resource, |(_, name)| name) {
        "cpu" if matches!(divisor, "1m" | "1") => return,
        "cpu" => "only divisor's values 1m and 1 are supported with the cpu resource".to_owned(),
        _ if BYTES.contains(&divisor) => return,
        "memory" => format!("{bytes} memory resource"),
        "ephemeral-storage" => format!("{bytes} local ephemeral storage resource"),
        name if name.starts_with("hugepages-") => format!("{bytes} hugepages resource"),
        _ => return,
    };
    errors.push(FieldError::invalid(at.path.child("divisor"), resource, text));
}

/// Checks `envFrom`.
pub(super) fn sources(container: &At<'_>, errors: &mut Errors) {
    let path = container.path.child("envFrom");
    for source in container.each("envFrom") {
        let prefix = source.field("prefix");
        prefix.optional(names::is_env_var_name, errors);
        let mut count = 0;
        for kind in ["configMapRef", "secretRef"] {
            if let Some(found) = source.some(kind) {
                count += 1;
                let name =
                    |name: &str| names::is_dns1123_subdomain(&names::mask_trailing_dash(name));
                found.field("name").required_name(name, errors);
            }
        }
        let text = match count {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.push(FieldError::invalid(&path, "", text));
    }
}
