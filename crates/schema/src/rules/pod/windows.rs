//! Rules of what only pods of one operating system may say.

use meta::{FieldError, names};
use serde_json::Value;

use super::tolerated::LISTS;
use crate::rules::at::{At, Errors};
use crate::view::View;

/// Checks `windowsOptions` of a security context.
pub(super) fn options(context: &At<'_>, errors: &mut Errors) {
    const LARGEST_SPEC: usize = 64 * 1024;
    let Some(options) = context.some("windowsOptions") else { return };
    if let Some(name) = options.some("gmsaCredentialSpecName") {
        name.check(names::is_dns1123_subdomain, errors);
    }
    if let Some(spec) = options.some("gmsaCredentialSpec") {
        match spec.str().len() {
            0 => spec.invalid("gmsaCredentialSpec cannot be an empty string", errors),
            length if length > LARGEST_SPEC => {
                spec.invalid("gmsaCredentialSpec size must be under 64 KiB", errors);
            }
            _ => {}
        }
    }
    if let Some(user) = options.some("runAsUserName") {
        for problem in user_name(user.str()) {
            user.invalid(format!("runAsUserName{problem}"), errors);
        }
    }
}

/// What is wrong with `DOMAIN\USER`.
fn user_name(text: &str) -> Vec<&'static str> {
    let parts: Vec<&str> = text.split('\\').collect();
    let (domain, user) = match parts[..] {
        _ if text.is_empty() => return vec![" cannot be an empty string"],
        _ if text.chars().any(|c| c.is_ascii_control()) => {
            return vec![" cannot contain control characters"];
        }
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec![" cannot contain more than one backslash"],
    };
    let mut problems = Vec::new();
    if domain.is_some_and(|domain| domain.len() >= 256) {
        problems.push("'s Domain length must be under 256 characters");
    }
    if domain.is_some_and(|domain| !is_netbios(domain) && !is_dns(domain)) {
        problems.push("'s Domain doesn't match the NetBios nor the DNS format");
    }
    match user.len() {
        0 => problems.push("'s User cannot be empty"),
        length if length > 104 => {
            problems.push("'s User length must not be longer than 104 characters");
        }
        _ => {}
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        problems.push("'s User cannot contain only periods or spaces");
    }
    if user.contains(|c| "\"/\\:;|=,+*?<>@[]".contains(c)) {
        problems.push("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
    problems
}

fn is_netbios(domain: &str) -> bool {
    let count = domain.chars().count();
    (1..=15).contains(&count)
        && !domain.starts_with('.')
        && !domain.contains(|c| "\\/:*?\"<>|".contains(c))
}

fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// Either all containers are processes of the host, or none.
pub(super) fn host_processes(spec: &At<'_>, errors: &mut Errors) {
    let says =
        |at: &Value| at.at("securityContext").at("windowsOptions").at("hostProcess").as_bool();
    let of_pod = says(spec.value);
    let (mut all, mut count) = (0, 0);
    for container in LISTS.iter().flat_map(|list| spec.each(list)) {
        let own = says(container.value);
        if let (Some(pod), Some(own)) = (of_pod, own)
            && pod != own
        {
            let path = container
                .path
                .child("securityContext")
                .child("windowsOptions")
                .child("hostProcess");
            let text =
                format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.push(FieldError::invalid(path, own, text));
        }
        all += 1;
        count += usize::from(own.or(of_pod) == Some(true));
    }
    if count == 0 {
        return;
    }
    if count != all {
        let text = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(&spec.path, "", text));
    }
    if !spec.flag("hostNetwork") {
        let text = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(spec.path.child("hostNetwork"), false, text));
    }
}

/// Fields that no pod of Windows has: in its security context unless they begin with a dot.
const NOT_OF_WINDOWS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    ".hostUsers",
    ".hostPID",
    ".hostIPC",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    ".shareProcessNamespace",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];

/// As [`NOT_OF_WINDOWS`], of containers.
const NOT_OF_WINDOWS_CONTAINERS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// Checks what depends on `spec.os`.
pub(super) fn system(spec: &At<'_>, errors: &mut Errors) {
    let Some(os) = spec.some("os") else { return };
    let containers = || LISTS.iter().flat_map(|list| spec.each(list));
    match os.str_of("name") {
        "" => os.field("name").required("", errors),
        "linux" => {
            let text = "windows options cannot be set for a linux pod";
            for context in std::iter::once(spec.clone()).chain(containers()) {
                if let Some(found) = context.field("securityContext").some("windowsOptions") {
                    found.forbidden(text, errors);
                }
            }
        }
        "windows" => {
            let text = "cannot be set for a windows pod";
            let context = spec.field("securityContext");
            for field in NOT_OF_WINDOWS {
                let found = match field.strip_prefix('.') {
                    Some(field) => spec.some(field).filter(|at| {
                        !field.starts_with("hostP") && !field.starts_with("hostI")
                            || *at.value == true
                    }),
                    None => context.some(field),
                };
                if let Some(found) = found {
                    found.forbidden(text, errors);
                }
            }
            for container in containers() {
                let context = container.field("securityContext");
                for found in NOT_OF_WINDOWS_CONTAINERS.iter().filter_map(|f| context.some(f)) {
                    found.forbidden(text, errors);
                }
            }
        }
        name => errors.push(FieldError::not_supported(&os.path, name, &["linux", "windows"])),
    }
}
