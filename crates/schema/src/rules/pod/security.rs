//! Rules of security contexts.

use std::collections::HashSet;

use meta::{FieldError, names};
use serde_json::Value;

use super::tolerated::Tolerated;
use super::windows;
use crate::rules::at::{At, Errors, relative_path};
use crate::view::View;

/// Checks a qualified name, such as a label's key.
pub(in crate::rules) fn qualified_name(at: &At<'_>, errors: &mut Errors) {
    at.check(names::is_qualified_name, errors);
}

/// Checks a user or group id.
pub(super) fn id(at: Option<At<'_>>, errors: &mut Errors) {
    if let Some(at) = at {
        at.in_range(0, i64::from(i32::MAX), errors);
    }
}

/// Checks `spec.securityContext`.
pub(super) fn pod_security_context(spec: &At<'_>, tolerated: Tolerated, errors: &mut Errors) {
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
    sysctls(spec, tolerated, errors);
    context.field("fsGroupChangePolicy").known(&["Always", "OnRootMismatch"], errors);
    seccomp(&context, errors);
    windows::options(&context, errors);
    app_armor(&context, errors);
    context.field("supplementalGroupsPolicy").known(&["Merge", "Strict"], errors);
    context.field("seLinuxChangePolicy").known(&["MountOption", "Recursive"], errors);
}

fn sysctls(spec: &At<'_>, tolerated: Tolerated, errors: &mut Errors) {
    const LONGEST: usize = 253;
    const PATTERN: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    let mut seen = HashSet::new();
    for sysctl in spec.field("securityContext").each("sysctls") {
        let name = sysctl.field("name");
        let known = !seen.insert(name.str());
        if name.str().is_empty() {
            name.required("", errors);
        } else if !is_sysctl(name.str()) {
            let text = format!("must have at most {LONGEST} characters and match regex {PATTERN}");
            name.invalid(text, errors);
        } else if known {
            name.duplicate(errors);
        }
        if !tolerated.host_sysctls {
            host_sysctl(spec, &name, errors);
        }
    }
}

/// Checks that no sysctl belongs to a namespace that the pod shares with its host.
pub(super) fn host_sysctls(spec: &At<'_>, errors: &mut Errors) {
    for sysctl in spec.field("securityContext").each("sysctls") {
        host_sysctl(spec, &sysctl.field("name"), errors);
    }
}

fn host_sysctl(spec: &At<'_>, name: &At<'_>, errors: &mut Errors) {
    const OF_IPC: &[&str] = &[
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.shm",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.msg",
    ];
    // Written with slashes, dots and slashes change places.
    let dotted: String = match name.str().find(['.', '/']) {
        Some(at) if name.str()[at..].starts_with('/') => name
            .str()
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => name.str().to_owned(),
    };
    let dotted = dotted.split('*').next().unwrap_or_default();
    let ipc = OF_IPC.contains(&dotted) || dotted.starts_with("fs.mqueue.");
    if spec.flag("hostNetwork") && dotted.starts_with("net.") {
        name.invalid_text("may not be specified when 'hostNetwork' is true", errors);
    } else if spec.flag("hostIPC") && ipc {
        name.invalid_text("may not be specified when 'hostIPC' is true", errors);
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

const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

fn seccomp(context: &At<'_>, errors: &mut Errors) {
    let Some(profile) = context.some("seccompProfile") else { return };
    let (kind, localhost) = (profile.field("type"), profile.some("localhostProfile"));
    match kind.str() {
        "" => kind.required("type is required when seccompProfile is set", errors),
        _ => kind.known(PROFILES, errors),
    }
    match (kind.str(), localhost) {
        ("Localhost", None) => profile
            .field("localhostProfile")
            .required("must be set when seccomp type is Localhost", errors),
        ("Localhost", Some(path)) => relative_path(&path, errors),
        (_, Some(path)) => {
            let shown = format!("{{\"Type\":{},\"LocalhostProfile\":{}}}", kind.value, path.value);
            let text = "can only be set when seccomp type is Localhost";
            errors.push(FieldError::invalid(&path.path, Value::Null, text).shown_as(shown));
        }
        (_, None) => {}
    }
}

/// The most bytes that the path of a profile has.
pub(super) const LONGEST_PROFILE: usize = 4095;

fn app_armor(context: &At<'_>, errors: &mut Errors) {
    const NEEDED: &str = "must be set when AppArmor type is Localhost";
    let Some(profile) = context.some("appArmorProfile") else { return };
    let (kind, localhost) = (profile.field("type"), profile.field("localhostProfile"));
    match (kind.str(), localhost.value) {
        ("Localhost", Value::Null) => localhost.required(NEEDED, errors),
        ("Localhost", _) => {
            if localhost.str().trim() != localhost.str() {
                localhost.invalid("must not be padded with whitespace", errors);
            } else if localhost.str().is_empty() {
                localhost.required(NEEDED, errors);
            }
            localhost.no_longer(LONGEST_PROFILE, errors);
        }
        ("RuntimeDefault" | "Unconfined", Value::Null) => {}
        ("RuntimeDefault" | "Unconfined", _) => {
            localhost.invalid("can only be set when AppArmor type is Localhost", errors);
        }
        ("", _) => kind.required("type is required when appArmorProfile is set", errors),
        _ => kind.unsupported(PROFILES, errors),
    }
}

/// Checks a container's security context.
pub(super) fn container_security_context(context: &At<'_>, host_users: bool, errors: &mut Errors) {
    id(context.some("runAsUser"), errors);
    id(context.some("runAsGroup"), errors);
    let mount = context.field("procMount");
    mount.known(&["Default", "Unmasked"], errors);
    if host_users && mount.str() == "Unmasked" {
        mount.invalid("`hostUsers` must be false to use `Unmasked`", errors);
    }
    seccomp(context, errors);
    if context.at("allowPrivilegeEscalation").as_bool() == Some(false) {
        if context.flag("privileged") {
            context.invalid(
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
                errors,
            );
        }
        let added = context.value.at("capabilities").items("add");
        for _ in added.iter().filter(|capability| **capability == "CAP_SYS_ADMIN") {
            let text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            context.invalid(text, errors);
        }
    }
    windows::options(context, errors);
    app_armor(context, errors);
}
