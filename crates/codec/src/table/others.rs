//! Rows of the remaining groups.

use jiff::Timestamp;
use schema::View;
use serde_json::Value;

use super::Cells;
use super::core::{count, load_balancer};
use super::format::{age, condition, duration, joined, name, number, or, selector};

/// The table of a kind of this file.
pub(super) fn printer(key: (&str, &str)) -> Option<(&'static str, Cells)> {
    networking(key).or_else(|| storage(key)).or_else(|| policies(key)).or_else(|| rest(key))
}

fn networking(key: (&str, &str)) -> Option<(&'static str, Cells)> {
    Some(match key {
        ("networking.k8s.io", "Ingress") => ("ingress", ingress),
        ("networking.k8s.io", "IngressClass") => ("ingressClass", |object, now| {
            let parameters = object.at("spec").at("parameters");
            let group = parameters.text("apiGroup");
            let kind = parameters.text("kind");
            let parameters = match parameters {
                Value::Null => "<none>".to_owned(),
                found if group.is_empty() => format!("{kind}/{}", found.text("name")),
                found => format!("{kind}.{group}/{}", found.text("name")),
            };
            let name = defaulted(object, &["ingressclass.kubernetes.io/is-default-class"]);
            vec![
                name,
                object.at("spec").text("controller").into(),
                parameters.into(),
                age(object, now),
            ]
        }),
        ("networking.k8s.io", "NetworkPolicy") => {
            ("networkPolicyColumnDefinitioins", |object, now| {
                vec![
                    name(object),
                    selector(object.at("spec").at("podSelector")).into(),
                    age(object, now),
                ]
            })
        }
        ("networking.k8s.io", "ServiceCIDR") => ("serviceCIDR", |object, now| {
            vec![
                name(object),
                joined(object.at("spec").items("cidrs"), ",").into(),
                age(object, now),
            ]
        }),
        ("networking.k8s.io", "IPAddress") => ("ipAddress", |object, _| {
            let parent = object.at("spec").at("parentRef");
            let (resource, group) = (parent.text("resource"), parent.text("group"));
            let resource =
                if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
            let text = match (parent, parent.text("namespace")) {
                (Value::Null, _) => "<none>".to_owned(),
                (_, "") => format!("{}/{}", resource.to_lowercase(), parent.text("name")),
                (_, namespace) => {
                    format!("{}/{namespace}/{}", resource.to_lowercase(), parent.text("name"))
                }
            };
            vec![name(object), text.into()]
        }),
        _ => return None,
    })
}

fn ingress(ingress: &Value, now: Timestamp) -> Vec<Value> {
    const MOST: usize = 3;
    let spec = ingress.at("spec");
    let rules = spec.items("rules");
    let hosts: Vec<&str> = rules
        .iter()
        .map(|rule| rule.text("host"))
        .filter(|host| !host.is_empty())
        .take(MOST)
        .collect();
    let hosts = match hosts.is_empty() {
        true => "*".to_owned(),
        false if rules.len() > MOST => {
            format!("{} + {} more...", hosts.join(","), rules.len() - MOST)
        }
        false => hosts.join(","),
    };
    let ports = if spec.items("tls").is_empty() { "80" } else { "80, 443" };
    vec![
        name(ingress),
        or(spec.text("ingressClassName"), "<none>").into(),
        hosts.into(),
        load_balancer(ingress).into(),
        ports.into(),
        age(ingress, now),
    ]
}

/// The name, marked if an annotation says that the object is the default of its kind.
fn defaulted(object: &Value, annotations: &[&str]) -> Value {
    let metadata = object.at("metadata");
    let marked = annotations.iter().any(|key| metadata.at("annotations").text(key) == "true");
    let name = metadata.text("name");
    if marked { format!("{name} (default)").into() } else { name.into() }
}

fn storage(key: (&str, &str)) -> Option<(&'static str, Cells)> {
    if key.0 != "storage.k8s.io" {
        return None;
    }
    Some(match key.1 {
        "StorageClass" => ("storageClass", |object, now| {
            let marks = [
                "storageclass.kubernetes.io/is-default-class",
                "storageclass.beta.kubernetes.io/is-default-class",
            ];
            vec![
                defaulted(object, &marks),
                object.text("provisioner").into(),
                or(object.text("reclaimPolicy"), "Delete").into(),
                or(object.text("volumeBindingMode"), "Immediate").into(),
                object.flag("allowVolumeExpansion").into(),
                age(object, now),
            ]
        }),
        "VolumeAttributesClass" => ("volumeAttributesClass", |object, now| {
            vec![name(object), object.text("driverName").into(), age(object, now)]
        }),
        "VolumeAttachment" => ("volumeAttachment", |object, now| {
            let spec = object.at("spec");
            vec![
                name(object),
                spec.text("attacher").into(),
                spec.at("source").text("persistentVolumeName").into(),
                spec.text("nodeName").into(),
                object.at("status").flag("attached").into(),
                age(object, now),
            ]
        }),
        "CSINode" => ("csiNode", |object, now| {
            vec![name(object), count(object.at("spec"), "drivers"), age(object, now)]
        }),
        "CSIDriver" => ("csiDriver", |object, _| {
            let spec = object.at("spec");
            let attach = spec.at("attachRequired").as_bool().unwrap_or(true);
            vec![
                name(object),
                attach.into(),
                spec.flag("podInfoOnMount").into(),
                spec.flag("storageCapacity").into(),
            ]
        }),
        "CSIStorageCapacity" => ("csiStorageCapacity", |object, _| {
            let capacity = or(object.text("capacity"), "<unset>");
            vec![name(object), object.text("storageClassName").into(), capacity.into()]
        }),
        _ => return None,
    })
}

fn policies(key: (&str, &str)) -> Option<(&'static str, Cells)> {
    if key.0 != "admissionregistration.k8s.io" {
        return None;
    }
    fn hooks(object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), count(object, "webhooks"), age(object, now)]
    }
    fn policy(object: &Value, now: Timestamp, list: &str) -> Vec<Value> {
        let (spec, kind) = (object.at("spec"), object.at("spec").at("paramKind"));
        let kind = match kind {
            Value::Null => "<unset>".to_owned(),
            kind => format!("{}/{}", kind.text("apiVersion"), kind.text("kind")),
        };
        vec![name(object), count(spec, list), kind.into(), age(object, now)]
    }
    fn binding(object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, reference) = (object.at("spec"), object.at("spec").at("paramRef"));
        let reference = match reference.text("name") {
            "" if reference.has("selector") => selector(reference.at("selector")),
            "" => "<unset>".to_owned(),
            name => format!("{}/{name}", or(reference.text("namespace"), "*")),
        };
        vec![name(object), spec.text("policyName").into(), reference.into(), age(object, now)]
    }
    Some(match key.1 {
        "MutatingWebhookConfiguration" => ("mutatingWebhook", hooks),
        "ValidatingWebhookConfiguration" => ("validatingWebhook", hooks),
        "ValidatingAdmissionPolicy" => {
            ("validatingAdmissionPolicy", |object, now| policy(object, now, "validations"))
        }
        "MutatingAdmissionPolicy" => {
            ("mutatingAdmissionPolicy", |object, now| policy(object, now, "mutations"))
        }
        "ValidatingAdmissionPolicyBinding" => ("validatingAdmissionPolicyBinding", binding),
        "MutatingAdmissionPolicyBinding" => ("mutatingAdmissionPolicyBinding", binding),
        _ => return None,
    })
}

fn rest(key: (&str, &str)) -> Option<(&'static str, Cells)> {
    Some(match key {
        ("rbac.authorization.k8s.io", "RoleBinding") => ("roleBindings", role_binding),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => {
            ("clusterRoleBindings", role_binding)
        }
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            ("certificateSigningRequest", signing_request)
        }
        ("coordination.k8s.io", "Lease") => ("lease", |object, now| {
            vec![name(object), object.at("spec").text("holderIdentity").into(), age(object, now)]
        }),
        ("scheduling.k8s.io", "PriorityClass") => ("priorityClass", |object, now| {
            vec![
                name(object),
                number(object, "value"),
                object.flag("globalDefault").into(),
                age(object, now),
                object.text("preemptionPolicy").into(),
            ]
        }),
        ("node.k8s.io", "RuntimeClass") => ("runtimeClass", |object, now| {
            vec![name(object), object.text("handler").into(), age(object, now)]
        }),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => ("flowSchema", flow_schema),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => {
            ("priorityLevel", priority_level)
        }
        ("resource.k8s.io", "DeviceClass") => {
            ("deviceClass", |object, now| vec![name(object), age(object, now)])
        }
        ("resource.k8s.io", "ResourceClaimTemplate") => {
            ("resourceClaimTemplate", |object, now| vec![name(object), age(object, now)])
        }
        ("resource.k8s.io", "ResourceClaim") => ("resourceClaim", |object, now| {
            let (status, deleted) =
                (object.at("status"), object.at("metadata").has("deletionTimestamp"));
            let mut words = Vec::new();
            if deleted {
                words.push("deleted");
            }
            match (status.has("allocation"), status.items("reservedFor").is_empty()) {
                (false, _) if deleted => {}
                (false, _) => words.push("pending"),
                (true, true) => words.push("allocated"),
                (true, false) => words.extend(["allocated", "reserved"]),
            }
            vec![name(object), words.join(",").into(), age(object, now)]
        }),
        ("resource.k8s.io", "ResourceSlice") => ("nodeResourceSlice", |object, now| {
            let spec = object.at("spec");
            let (node, driver) = (spec.text("nodeName"), spec.text("driver"));
            vec![
                name(object),
                node.into(),
                driver.into(),
                spec.at("pool").text("name").into(),
                age(object, now),
            ]
        }),
        ("", "Status") => ("status", |object, _| {
            ["status", "reason", "message"].map(|field| Value::from(object.text(field))).to_vec()
        }),
        _ => return None,
    })
}

fn role_binding(binding: &Value, now: Timestamp) -> Vec<Value> {
    let role = binding.at("roleRef");
    let subjects = |kind: &str| {
        let of_kind =
            binding.items("subjects").iter().filter(|subject| subject.text("kind") == kind);
        let names: Vec<String> = of_kind
            .map(|subject| match kind {
                "ServiceAccount" => {
                    format!("{}/{}", subject.text("namespace"), subject.text("name"))
                }
                _ => subject.text("name").to_owned(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    vec![
        name(binding),
        format!("{}/{}", role.text("kind"), role.text("name")).into(),
        age(binding, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

fn signing_request(request: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (request.at("spec"), request.at("status"));
    let has = |kind: &str| {
        status.items("conditions").iter().any(|condition| condition.text("type") == kind)
    };
    let mut word = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        word.push_str(",Failed");
    }
    if !status.text("certificate").is_empty() {
        word.push_str(",Issued");
    }
    let lifetime = spec.int("expirationSeconds").map_or_else(|| "<none>".to_owned(), duration);
    vec![
        name(request),
        age(request, now),
        or(spec.text("signerName"), "<none>").into(),
        spec.text("username").into(),
        lifetime.into(),
        word.into(),
    ]
}

fn flow_schema(schema: &Value, now: Timestamp) -> Vec<Value> {
    let spec = schema.at("spec");
    let status = schema.at("status");
    let missing = match status
        .items("conditions")
        .iter()
        .any(|condition| condition.text("type") == "Dangling")
    {
        true if condition(status, "Dangling") => "True",
        true => "False",
        false => "?",
    };
    vec![
        name(schema),
        spec.at("priorityLevelConfiguration").text("name").into(),
        number(spec, "matchingPrecedence"),
        or(spec.at("distinguisherMethod").text("type"), "<none>").into(),
        age(schema, now),
        missing.into(),
    ]
}

fn priority_level(level: &Value, now: Timestamp) -> Vec<Value> {
    let limited = level.at("spec").at("limited");
    let queuing = limited.at("limitResponse").at("queuing");
    let shown = |object: &Value, field: &str| match object.at(field) {
        Value::Null => Value::from("<none>"),
        value => value.clone(),
    };
    vec![
        name(level),
        level.at("spec").text("type").into(),
        shown(limited, "nominalConcurrencyShares"),
        shown(queuing, "queues"),
        shown(queuing, "handSize"),
        shown(queuing, "queueLengthLimit"),
        age(level, now),
    ]
}
