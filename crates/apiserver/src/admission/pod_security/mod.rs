//! PodSecurity: pods keep to the level of the Pod Security Standards that their namespace asks for, and whoever
//! writes workloads or changes the level is told what does not.

mod checks;
mod controls;
mod namespace;
mod policy;

use meta::Status;
use registry::{Admit, Attributes, Operation, Row};
use serde_json::Value;

use self::{
    checks::{Pod, details, violations},
    policy::Policy,
};
use super::{Admitted, decided, each, fine, forbid, is_core, read, text};

/// Subresources of pods that do not change what a pod is.
const HARMLESS: [&str; 8] =
    ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// Where a workload keeps its template.
const WORKLOADS: &[(&str, &str, &str)] = &[
    ("", "replicationcontrollers", "/spec/template"),
    ("", "podtemplates", "/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("batch", "jobs", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
];

/// The plugin.
#[derive(Debug, Default)]
pub(super) struct PodSecurity {
    defaults: Policy,
    exempt_users: Vec<String>,
    exempt_namespaces: Vec<String>,
    exempt_classes: Vec<String>,
}

impl PodSecurity {
    /// With a `PodSecurityConfiguration`, or nothing.
    pub(super) fn configured(configuration: &Value) -> Result<Self, String> {
        let list = |field: &str| {
            let names = each(&configuration["exemptions"], field);
            names.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Ok(Self {
            defaults: Policy::configured(&configuration["defaults"])?,
            exempt_users: list("usernames"),
            exempt_namespaces: list("namespaces"),
            exempt_classes: list("runtimeClasses"),
        })
    }
}

fn template(row: &Row) -> Option<&'static str> {
    let found = WORKLOADS.iter().find(|(group, resource, _)| {
        row.resource.group == *group && row.resource.resource == *resource
    });
    found.map(|(_, _, path)| *path)
}

impl Admit for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && match subresource {
                None => {
                    is_core(row, "pods") || is_core(row, "namespaces") || template(row).is_some()
                }
                Some(name) => is_core(row, "pods") && !HARMLESS.contains(&name),
            }
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> Admitted<'a> {
        let Some(object) = object else { return fine() };
        decided(if is_core(attributes.row, "namespaces") {
            self.namespace(attributes, object)
        } else {
            self.pods(attributes, object)
        })
    }
}

impl PodSecurity {
    fn pods(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        let namespace = attributes.namespace.unwrap_or_default();
        for (list, name, told) in [
            (&self.exempt_namespaces, namespace, "namespace"),
            (&self.exempt_users, attributes.user.name.as_str(), "user"),
        ] {
            if !name.is_empty() && list.iter().any(|one| one == name) {
                annotate(attributes, "exempt", told);
                return Ok(());
            }
        }
        let Some(found) = read(attributes, "", "namespaces", None, namespace) else {
            return Err(Status::internal(format!("failed to lookup namespace {namespace:?}")));
        };
        let (policy, errors) = Policy::of(&found["metadata"]["labels"], &self.defaults);
        if errors.is_empty() && policy.is_privileged() {
            annotate(attributes, "enforce-policy", "privileged:latest");
            return Ok(());
        }
        match template(attributes.row) {
            None => {
                if attributes.old.is_some_and(|old| !is_significant(object, old)) {
                    return Ok(());
                }
                let pod = Pod { metadata: &object["metadata"], spec: &object["spec"] };
                self.judge(attributes, &policy, pod, Some(object))
            }
            Some(path) => match object.pointer(path).filter(|template| template.is_object()) {
                Some(found) => {
                    let pod = Pod { metadata: &found["metadata"], spec: &found["spec"] };
                    self.judge(attributes, &policy, pod, None)
                }
                None => Ok(()),
            },
        }
    }

    /// Warns, notes and, if a pod is given to enforce it on, refuses.
    fn judge(
        &self,
        attributes: &Attributes<'_>,
        policy: &Policy,
        pod: Pod<'_>,
        enforced: Option<&Value>,
    ) -> Result<(), Status> {
        if self.is_exempt(pod.spec) {
            annotate(attributes, "exempt", "runtimeClass");
            return Ok(());
        }
        let found = violations(policy.audit, pod);
        if !found.is_empty() {
            let text =
                format!("would violate PodSecurity \"{}\": {}", policy.audit, details(&found));
            annotate(attributes, "audit-violations", &text);
        }
        if let Some(object) = enforced {
            annotate(attributes, "enforce-policy", &policy.enforce.to_string());
            let found = violations(policy.enforce, pod);
            if !found.is_empty() {
                let level = policy.enforce;
                let why = format!("violates PodSecurity \"{level}\": {}", details(&found));
                return Err(forbid(attributes, Some(object), why));
            }
        }
        let found = violations(policy.warn, pod);
        if !found.is_empty() {
            let level = policy.warn;
            attributes.warn(format!("would violate PodSecurity \"{level}\": {}", details(&found)));
        }
        Ok(())
    }

    fn is_exempt(&self, spec: &Value) -> bool {
        let class = text(spec, "runtimeClassName");
        !class.is_empty() && self.exempt_classes.iter().any(|one| one == class)
    }
}

/// Notes something of the request for the audit log.
fn annotate(attributes: &Attributes<'_>, key: &str, value: &str) {
    attributes.annotate(format!("pod-security.kubernetes.io/{key}"), value);
}

/// Whether an update may make a pod another one: images changed, or containers came.
fn is_significant(new: &Value, old: &Value) -> bool {
    let images = |pod: &Value, list: &str| -> Vec<String> {
        each(&pod["spec"], list).map(|one| text(one, "image").to_owned()).collect()
    };
    if ["containers", "initContainers"].iter().any(|list| images(new, list) != images(old, list)) {
        return true;
    }
    each(&new["spec"], "ephemeralContainers").any(|container| {
        let same = |known: &&Value| known["name"] == container["name"];
        let known = each(&old["spec"], "ephemeralContainers").find(same);
        known.is_none_or(|known| known["image"] != container["image"])
    })
}

#[cfg(test)]
mod tests;
