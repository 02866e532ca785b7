//! Rules of containers: regular, init (sidecars among them) and ephemeral ones.

use std::collections::BTreeSet;

use meta::{FieldError, names};
use serde_json::Value;

use super::handler::{lifecycle, probe};
use super::volume::{self, Volumes};
use super::{env, padded_image, resources, security};
use crate::rules::at::{At, Errors, PROTOCOLS};
use crate::view::View;

/// What the containers of one pod have in common.
pub(super) struct Shared<'a> {
    /// The pod's volumes that are in order, by name.
    pub(super) volumes: &'a Volumes<'a>,
    /// Names of the pod's resource claims.
    pub(super) claims: BTreeSet<&'a str>,
    /// The pod's termination grace period in seconds.
    pub(super) grace: Option<i64>,
    /// The pod's restart policy.
    pub(super) restart_policy: &'a str,
    /// The pod's operating system, if it says.
    pub(super) os: &'a str,
    /// Whether the pod runs in the host's user namespace.
    pub(super) host_users: bool,
}

/// Checks `spec.containers`.
pub(super) fn containers(spec: &At<'_>, shared: &Shared<'_>, errors: &mut Errors) {
    if spec.items("containers").is_empty() {
        return spec.field("containers").required("", errors);
    }
    let mut names = BTreeSet::new();
    for container in spec.each("containers") {
        common(&container, shared, errors);
        if !names.insert(container.str_of("name")) {
            container.field("name").duplicate(errors);
        }
        hooks(&container, shared, errors);
        restart_policy(&container, errors);
    }
    host_port_conflicts(spec.each("containers"), errors);
}

/// Lifecycle and probes, where they are allowed.
fn hooks(container: &At<'_>, shared: &Shared<'_>, errors: &mut Errors) {
    if let Some(found) = container.some("lifecycle") {
        lifecycle(&found, shared.grace, shared.os, errors);
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = container.some(kind) {
            probe(&found, shared.grace, kind, errors);
        }
    }
}

/// Checks `spec.initContainers`.
pub(super) fn init_containers(spec: &At<'_>, shared: &Shared<'_>, errors: &mut Errors) {
    let mut names: BTreeSet<&str> =
        spec.each("containers").map(|container| container.str_of("name")).collect();
    for container in spec.each("initContainers") {
        common(&container, shared, errors);
        if container.has("restartPolicy") || !container.items("restartPolicyRules").is_empty() {
            restart_policy(&container, errors);
        }
        let name = container.str_of("name");
        if names.contains(name) {
            container.field("name").duplicate(errors);
        } else if !name.is_empty() {
            names.insert(name);
        }
        host_port_conflicts(std::iter::once(container.clone()), errors);
        if container.str_of("restartPolicy") == "Always" {
            hooks(&container, shared, errors);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if let Some(found) = container.some(field) {
                found.forbidden(
                    "may not be set for init containers without restartPolicy=Always",
                    errors,
                );
            }
        }
        for policy in container.each("resizePolicy") {
            let restart = policy.field("restartPolicy");
            if restart.str() == "RestartContainer" {
                let text = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                restart.invalid(text, errors);
            }
        }
    }
}

/// Fields of a container that mean nothing in an ephemeral one.
const NOT_EPHEMERAL: &[&str] = &[
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
];

/// Checks `spec.ephemeralContainers`.
pub(super) fn ephemeral_containers(spec: &At<'_>, shared: &Shared<'_>, errors: &mut Errors) {
    let others: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec.each(list))
        .map(|c| c.str_of("name"))
        .collect();
    let mut names = others.clone();
    for container in spec.each("ephemeralContainers") {
        common(&container, shared, errors);
        padded_image(&container, errors);
        if !names.insert(container.str_of("name")) {
            container.field("name").duplicate(errors);
        }
        let target = container.field("targetContainerName");
        if !target.str().is_empty() && !others.contains(target.str()) {
            target.not_found(errors);
        }
        let text = "cannot be set for an Ephemeral Container";
        for field in NOT_EPHEMERAL {
            if let Some(found) = container.some(field) {
                found.forbidden(text, errors);
            }
        }
        let resources = container.field("resources");
        if resources.value.as_object().is_some_and(|resources| !resources.is_empty()) {
            resources.forbidden(text, errors);
        }
        for mount in container.each("volumeMounts") {
            for field in ["subPath", "subPathExpr"] {
                if let Some(found) = mount.some(field) {
                    found.forbidden(text, errors);
                }
            }
        }
    }
}

/// What holds of containers of every sort.
fn common(container: &At<'_>, shared: &Shared<'_>, errors: &mut Errors) {
    container.field("name").required_name(names::is_dns1123_label, errors);
    if container.str_of("image").is_empty() {
        container.field("image").required("", errors);
    }
    container.field("terminationMessagePolicy").one_of(&["File", "FallbackToLogsOnError"], errors);
    ports(container, errors);
    env::variables(container, errors);
    env::sources(container, errors);
    volume::mounts(container, shared.volumes, errors);
    volume::devices(container, shared.volumes, errors);
    container.field("imagePullPolicy").one_of(&["Always", "IfNotPresent", "Never"], errors);
    resources::requirements(&container.field("resources"), Some(&shared.claims), errors);
    resize_policy(container, shared.restart_policy, errors);
    if let Some(context) = container.some("securityContext") {
        security::container_security_context(&context, shared.host_users, errors);
    }
}

fn ports(container: &At<'_>, errors: &mut Errors) {
    let mut known = Vec::new();
    for port in container.each("ports") {
        let name = port.field("name");
        if !name.str().is_empty() {
            let problems = names::is_port_name(name.str());
            if problems.is_empty() && known.contains(&name.str()) {
                name.duplicate(errors);
            }
            known.push(name.str());
            name.check(|_| problems, errors);
        }
        match port.int("containerPort").unwrap_or_default() {
            0 => port.field("containerPort").required("", errors),
            _ => port.field("containerPort").port(errors),
        }
        if port.int("hostPort").unwrap_or_default() != 0 {
            port.field("hostPort").port(errors);
        }
        port.field("protocol").one_of(PROTOCOLS, errors);
    }
}

fn host_port_conflicts<'a>(containers: impl Iterator<Item = At<'a>>, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for container in containers {
        for port in container.each("ports") {
            let number = port.int("hostPort").unwrap_or_default();
            if number == 0 {
                continue;
            }
            let key = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
            if !taken.insert(key.clone()) {
                errors.push(FieldError::duplicate(port.path.child("hostPort"), key));
            }
        }
    }
}

fn resize_policy(container: &At<'_>, pod_restart_policy: &str, errors: &mut Errors) {
    let path = container.path.child("resizePolicy");
    let mut seen = Vec::new();
    for policy in container.each("resizePolicy") {
        let (resource, restart) = (policy.str_of("resourceName"), policy.str_of("restartPolicy"));
        if seen.contains(&resource) {
            errors.push(FieldError::duplicate(&policy.path, resource));
        }
        seen.push(resource);
        let on_list = |field: &str| At { value: policy.value.at(field), path: path.clone() };
        on_list("resourceName").one_of(&["cpu", "memory"], errors);
        on_list("restartPolicy").one_of(&["NotRequired", "RestartContainer"], errors);
        if pod_restart_policy == "Never" && restart != "NotRequired" {
            let text = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            on_list("restartPolicy").invalid_text(text, errors);
        }
    }
}

fn restart_policy(container: &At<'_>, errors: &mut Errors) {
    const MOST_RULES: usize = 20;
    const MOST_CODES: usize = 255;
    let (policy, rules) = (container.field("restartPolicy"), container.items("restartPolicyRules"));
    match policy.value {
        Value::Null if rules.is_empty() => return,
        Value::Null => {
            policy.required("must specify restartPolicy when restart rules are used", errors)
        }
        _ if ["Always", "Never", "OnFailure"].contains(&policy.str()) => {}
        _ => policy.unsupported(&["Always", "Never", "OnFailure"], errors),
    }
    if rules.len() > MOST_RULES {
        errors.push(FieldError::too_many(
            container.path.child("restartPolicyRules"),
            rules.len(),
            MOST_RULES,
        ));
    }
    for rule in container.each("restartPolicyRules") {
        let action = rule.field("action");
        if !["Restart", "RestartAllContainers"].contains(&action.str()) {
            action.unsupported(&["Restart", "RestartAllContainers"], errors);
        }
        let Some(codes) = rule.some("exitCodes") else {
            rule.field("exitCodes").required("must be specified", errors);
            continue;
        };
        let operator = codes.field("operator");
        if !["In", "NotIn"].contains(&operator.str()) {
            operator.unsupported(&["In", "NotIn"], errors);
        }
        let count = codes.items("values").len();
        if count > MOST_CODES {
            errors.push(FieldError::too_many(codes.path.child("values"), count, MOST_CODES));
        }
    }
}
