//! Rules of containers: regular, init (sidecars among them) and ephemeral ones.

use std::collections::{BTreeSet, HashSet};

use meta::{FieldError, names};
use serde_json::Value;

use super::handler::{lifecycle, probe};
use super::mount::{self, Volumes};
use super::tolerated::Tolerated;
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
    pub(super) tolerated: Tolerated,
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
        if container.has("restartPolicy") {
            restart_policy(&container, errors);
        } else if !container.items("restartPolicyRules").is_empty() {
            container.field("restartPolicy").required(POLICY_FOR_RULES, errors);
        }
        let name = container.str_of("name");
        if names.contains(name) {
            container.field("name").duplicate(errors);
        } else if !name.is_empty() {
            names.insert(name);
        }
        // Upstream looks at each alone and takes it for the first.
        let alone = container.under(spec.path.child("initContainers").index(0));
        host_port_conflicts(std::iter::once(alone), errors);
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
        for policy in container.each("resizePolicy").filter(|_| !shared.tolerated.restarted_init) {
            let restart = policy.field("restartPolicy");
            if restart.str() == "RestartContainer" {
                let text = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                restart.invalid(text, errors);
            }
        }
    }
}

/// Fields of a container that mean nothing in an ephemeral one, in Go's order.
const NOT_EPHEMERAL: &[&str] = &[
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
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
        let empty = |at: &At<'_>| *at.value == Value::Object(serde_json::Map::new());
        for field in NOT_EPHEMERAL.iter().filter_map(|field| container.some(field)) {
            // Defaulting puts empty resources everywhere.
            if !field.path.as_str().ends_with(".resources") || !empty(&field) {
                field.forbidden(text, errors);
            }
        }
        for mount in container.each("volumeMounts") {
            for field in ["subPath", "subPathExpr"] {
                if !mount.str_of(field).is_empty() {
                    mount.field(field).forbidden(text, errors);
                }
            }
        }
    }
}

/// What holds of containers of every sort.
fn common(container: &At<'_>, shared: &Shared<'_>, errors: &mut Errors) {
    container.field("name").required_name(names::is_dns1123_label, errors);
    container.field("image").needed(errors);
    container.field("terminationMessagePolicy").one_of(&["File", "FallbackToLogsOnError"], errors);
    ports(container, errors);
    env::variables(container, errors);
    env::sources(container, errors);
    mount::mounts(container, shared.volumes, errors);
    mount::devices(container, shared.volumes, errors);
    container.field("imagePullPolicy").one_of(&["Always", "IfNotPresent", "Never"], errors);
    let claims = Some(&shared.claims);
    resources::requirements(&container.field("resources"), claims, shared.tolerated, errors);
    resize_policy(container, shared.restart_policy, errors);
    if let Some(context) = container.some("securityContext") {
        security::container_security_context(&context, shared.host_users, errors);
    }
}

fn ports(container: &At<'_>, errors: &mut Errors) {
    let mut known = HashSet::new();
    for port in container.each("ports") {
        let name = port.field("name");
        if !name.str().is_empty() {
            let problems = names::is_port_name(name.str());
            if problems.is_empty() && !known.insert(name.str()) {
                name.duplicate(errors);
            }
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
    let mut taken = HashSet::new();
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
    let mut seen = HashSet::new();
    for policy in container.each("resizePolicy") {
        let (resource, restart) = (policy.str_of("resourceName"), policy.str_of("restartPolicy"));
        if !seen.insert(resource) {
            errors.push(FieldError::duplicate(&policy.path, resource));
        }
        let on_list = |field: &str| At { value: policy.value.at(field), path: path.clone() };
        on_list("resourceName").one_of(&["cpu", "memory"], errors);
        on_list("restartPolicy").one_of(&["NotRequired", "RestartContainer"], errors);
        if pod_restart_policy == "Never" && restart != "NotRequired" {
            let text = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            on_list("restartPolicy").invalid_text(text, errors);
        }
    }
}

const POLICY_FOR_RULES: &str = "must specify restartPolicy when restart rules are used";

fn restart_policy(container: &At<'_>, errors: &mut Errors) {
    const MOST_RULES: usize = 20;
    const MOST_CODES: usize = 255;
    let (policy, rules) = (container.field("restartPolicy"), container.items("restartPolicyRules"));
    match policy.value {
        Value::Null if rules.is_empty() => return,
        Value::Null => {
            policy.required(POLICY_FOR_RULES, errors);
        }
        _ => policy.known(&["Always", "Never", "OnFailure"], errors),
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
