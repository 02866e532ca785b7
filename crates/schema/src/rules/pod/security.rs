//! Rules of security contexts.

use meta::{FieldError, names};
use serde_json::Value;

use crate::rules::at::{At, Errors, relative_path};
use crate::view::View;

/// Checks a qualified name, such as a label's key.
pub(in crate::rules) fn qualified_name(at: &At<'_>, errors: &mut Errors) {
    at.check(names::is_qualified_name, errors);
}

/// Checks a user or group id.
fn id(at: Option<At<'_>>, errors: &mut Errors) {
    if let Some(at) = at.filter(|at| !(0..=i64::from(i32::MAX)).contains(&at.number())) {
        at.invalid(names::range_error(0, i64::from(i32::MAX)), errors);
    }
}

/// Checks `spec.securityContext`.
pub(super) fn pod_security_context(spec: &At<'_>, errors: &mut Errors) {
    let Some(context) = spec.some("securityContext") else { return };
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(context.some(field), errors);
    }
    for group in context.each("supplementalGroups") {
        id(Some(group), errors);
    }
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let path = context.path.child("shareProcessNamespace");
        let text = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(path, true, text));
    }
    sysctls(&context, errors);
    supported(&context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], errors);
    profile(&context, "seccompProfile", "seccomp", errors);
    profile(&context, "appArmorProfile", "AppArmor", errors);
    supported(&context, "supplementalGroupsPolicy", &["Merge", "Strict"], errors);
    supported(&context, "seLinuxChangePolicy", &["MountOption", "Recursive"], errors);
}

/// A field that may be absent, but not of another value.
fn supported(context: &At<'_>, field: &str, values: &[&str], errors: &mut Errors) {
    if let Some(found) = context.some(field).filter(|found| !values.contains(&found.str())) {
        found.unsupported(values, errors);
    }
}

fn sysctls(context: &At<'_>, errors: &mut Errors) {
    const LONGEST: usize = 253;
    const PATTERN: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    let mut seen = Vec::new();
    for sysctl in context.each("sysctls") {
        let name = sysctl.field("name");
        if name.str().is_empty() {
            name.required("", errors);
        } else if !is_sysctl(name.str()) {
            name.invalid(
                format!("must have at most {LONGEST} characters and match regex {PATTERN}"),
                errors,
            );
        } else if seen.contains(&name.str()) {
            name.duplicate(errors);
        }
        seen.push(name.str());
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let part = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().is_some_and(edge)
            && bytes.last().is_some_and(edge)
            && bytes.iter().all(|byte| edge(byte) || matches!(byte, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(part)
}

/// Checks a seccomp or AppArmor profile.
fn profile(context: &At<'_>, field: &str, what: &str, errors: &mut Errors) {
    let Some(profile) = context.some(field) else { return };
    let (kind, localhost) = (profile.field("type"), profile.field("localhostProfile"));
    match kind.str() {
        "" => kind.required(&format!("type is required when {field} is set"), errors),
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
        _ => kind.unsupported(&["Localhost", "RuntimeDefault", "Unconfined"], errors),
    }
    match (kind.str(), localhost.value) {
        ("Localhost", Value::Null) => {
            localhost.required(&format!("must be set when {what} type is Localhost"), errors);
        }
        ("Localhost", _) if what == "seccomp" => relative_path(&localhost, errors),
        ("Localhost", _) if localhost.str().trim().is_empty() => {
            localhost.required(&format!("must be set when {what} type is Localhost"), errors);
        }
        ("Localhost", _) if localhost.str().trim() != localhost.str() => {
            localhost.invalid("must not be padded with whitespace", errors);
        }
        ("Localhost", _) | (_, Value::Null) => {}
        _ => localhost.invalid(format!("can only be set when {what} type is Localhost"), errors),
    }
}

/// Checks a container's security context.
pub(super) fn container_security_context(context: &At<'_>, host_users: bool, errors: &mut Errors) {
    id(context.some("runAsUser"), errors);
    id(context.some("runAsGroup"), errors);
    if let Some(mount) = context.some("procMount") {
        match mount.str() {
            "Default" | "Unmasked" => {}
            _ => mount.unsupported(&["Default", "Unmasked"], errors),
        }
        if host_users && mount.str() == "Unmasked" {
            mount.invalid("`hostUsers` must be false to use `Unmasked`", errors);
        }
    }
    profile(context, "seccompProfile", "seccomp", errors);
    if context.at("allowPrivilegeEscalation").as_bool() == Some(false) {
        if context.flag("privileged") {
            context.invalid(
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
                errors,
            );
        }
        let added = context.value.at("capabilities").items("add");
        if added.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            context.invalid(text, errors);
        }
    }
    profile(context, "appArmorProfile", "AppArmor", errors);
}
