//! What authors of objects are warned of: what is deprecated, and what surprises.
//!
//! Owns one table from kind to warnings. Warnings never refuse anything; they are said only of objects that
//! passed validation.

mod address;
mod labels;
mod others;
mod paths;
mod pod;
mod service;

use meta::{FieldPath, GroupVersionKind, Quantity, names};
use serde_json::Value;

use super::at::At;
use crate::view::{View, same};

/// What to warn of, in upstream's order.
type Warnings = Vec<String>;

/// More than fit into an answer's headers.
const MOST: usize = 512;

/// What to warn of in a new or, where there is an old one, changed object.
pub(super) fn of(kind: &GroupVersionKind, object: &Value, old: Option<&Value>) -> Warnings {
    let root = At::root(object);
    let mut said = Warnings::new();
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Endpoints") => endpoints(&root, &mut said),
        ("", "Node") => node(&root.field("spec"), &mut said),
        ("", "PersistentVolume") => volume(&root, &mut said),
        ("", "PersistentVolumeClaim") => {
            annotation(&root, STORAGE_CLASS, STORAGE_CLASS_TEXT, &mut said);
            claim(&root.field("spec"), &mut said);
        }
        ("", "Pod") if old.is_none() => {
            named(&root, "the Pod's hostname", &mut said);
            pod::pod(&root, &mut said);
        }
        ("", "PodTemplate") => template(&root, old, &["template"], &mut said),
        ("", "ReplicationController") => {
            named_pods(&root, old, &mut said);
            // Upstream looks at the old template when one changes.
            let shown = old.map_or_else(|| root.clone(), At::root);
            template(&shown, old.map(|_| object), &["spec", "template"], &mut said);
        }
        ("", "ResourceQuota") if old.is_none() => quota(object.at("spec"), &mut said),
        ("", "Service") => service::service(&root.field("spec"), object.at("metadata"), &mut said),
        ("", "ServiceAccount") if old.is_none_or(|old| !has_annotation(old, MOUNTABLE)) => {
            annotation(&root, MOUNTABLE, MOUNTABLE_TEXT, &mut said);
        }
        ("apps", "DaemonSet") => template(&root, old, &["spec", "template"], &mut said),
        ("apps", "Deployment" | "ReplicaSet") => {
            named_pods(&root, old, &mut said);
            template(&root, old, &["spec", "template"], &mut said);
        }
        ("apps", "StatefulSet") => stateful_set(&root, old, &mut said),
        ("batch", "Job") => {
            named_pods(&root, old, &mut said);
            job(&root, old, &["spec"], &mut said);
        }
        ("batch", "CronJob") => {
            named_pods(&root, old, &mut said);
            job(&root, old, &["spec", "jobTemplate", "spec"], &mut said);
            if old.is_some() && object.at("spec").text("schedule").contains("TZ") {
                said.push(ZONE_IN_SCHEDULE.to_owned());
            }
        }
        (group, kind) => others::of(group, kind, &root, old, &mut said),
    }
    said
}

/// What to warn of in a changed status.
pub(super) fn of_status(kind: &GroupVersionKind, object: &Value) -> Warnings {
    let status = At::root(object).field("status");
    let mut said = Warnings::new();
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => {
            for ip in ["podIPs", "hostIPs"].into_iter().flat_map(|list| status.each(list)) {
                address::ip(&ip.field("ip"), &mut said);
            }
        }
        ("", "Service") | ("networking.k8s.io", "Ingress") => {
            for ingress in status.field("loadBalancer").each("ingress") {
                address::ip(&ingress.field("ip").under(ingress.path), &mut said);
            }
        }
        _ => {}
    }
    said
}

const STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const STORAGE_CLASS_TEXT: &str =
    "deprecated since v1.8; use \"storageClassName\" attribute instead";
const MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
const MOUNTABLE_TEXT: &str =
    "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
const ZONE_IN_SCHEDULE: &str = "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details";

fn say(path: &FieldPath, text: &str, said: &mut Warnings) {
    if said.len() < MOST {
        said.push(format!("{path}: {text}"));
    }
}

fn has_annotation(object: &Value, key: &str) -> bool {
    object.at("metadata").at("annotations").has(key)
}

fn annotation(root: &At<'_>, key: &str, text: &str, said: &mut Warnings) {
    if has_annotation(root.value, key) {
        say(&root.path.child("metadata").child("annotations").key(key), text, said);
    }
}

/// A name that becomes one of a host should be a label.
fn named(root: &At<'_>, used: &str, said: &mut Warnings) {
    let problems = names::is_dns1123_label(root.at("metadata").text("name"));
    if !problems.is_empty() {
        let problems = problems.join(" ");
        said.push(format!(
            "metadata.name: this is used in {used}, which can result in surprising behavior; a DNS label is \
             recommended: [{problems}]"
        ));
    }
}

fn named_pods(root: &At<'_>, old: Option<&Value>, said: &mut Warnings) {
    if old.is_none() {
        named(root, "Pod names and hostnames", said);
    }
}

fn down<'a>(root: &At<'a>, path: &[&str]) -> At<'a> {
    path.iter().fold(root.clone(), |at, field| at.field(field))
}

/// Whether the specification is new: what nobody touched is not warned of again.
fn is_new(object: &Value, old: Option<&Value>) -> bool {
    let generation = |object: &Value| object.at("metadata").int("generation").unwrap_or_default();
    old.is_none_or(|old| {
        generation(object) != generation(old)
            || (object.at("kind") == "DaemonSet" && !same(object.at("spec"), old.at("spec")))
    })
}

fn template(root: &At<'_>, old: Option<&Value>, path: &[&str], said: &mut Warnings) {
    if is_new(root.value, old) {
        pod::template(&down(root, path), said);
    }
}

fn job(root: &At<'_>, old: Option<&Value>, path: &[&str], said: &mut Warnings) {
    if !is_new(root.value, old) {
        return;
    }
    let spec = down(root, path);
    let number = |field: &str| spec.field(field).number();
    if spec.str_of("completionMode") == "Indexed"
        && number("completions") > 100_000
        && number("parallelism") > 10_000
    {
        let text = "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail";
        say(&spec.path, text, said);
    }
    pod::template(&spec.field("template"), said);
}

fn stateful_set(root: &At<'_>, old: Option<&Value>, said: &mut Warnings) {
    let spec = root.field("spec");
    template(root, old, &["spec", "template"], said);
    for found in spec.each("volumeClaimTemplates") {
        let path = if old.is_some() { found.path.child("Spec") } else { found.path.clone() };
        claim(&found.field("spec").under(path), said);
    }
    if spec.field("revisionHistoryLimit").number() < 0 {
        let text = "a negative value retains all historical revisions; a value >= 0 is recommended";
        say(&spec.path.child("revisionHistoryLimit"), text, said);
    }
}

fn fraction(amount: &At<'_>, said: &mut Warnings) {
    if let Ok(quantity) = amount.str().parse::<Quantity>()
        && quantity.milli_value() % 1000 != 0
    {
        let text = format!("fractional byte value \"{quantity}\" is invalid, must be an integer");
        say(&amount.path, &text, said);
    }
}

/// An entry of a map.
fn entry<'a>(map: &At<'a>, key: &str) -> At<'a> {
    At { value: map.value.at(key), path: map.path.key(key) }
}

fn claim(spec: &At<'_>, said: &mut Warnings) {
    for kind in ["requests", "limits"] {
        fraction(&entry(&spec.field("resources").field(kind), "storage"), said);
    }
}

/// Sources of volumes that nothing serves any more, in the order in which pods (and, where there is a number,
/// volumes) are looked through.
const GONE: &[(&str, Option<u8>, &str)] = &[
    ("photonPersistentDisk", Some(1), "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", None, "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", Some(2), "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", None, "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", Some(3), "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", None, "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", Some(4), "deprecated in v1.25, non-functional in v1.26+"),
    ("ephemeral", None, ""),
    ("cephfs", Some(0), "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", Some(5), "deprecated in v1.28, non-functional in v1.31+"),
];

/// The path under which a source is warned of.
fn source_path(owner: &FieldPath, source: &str) -> FieldPath {
    owner.child(if source == "storageos" { "storageOS" } else { source })
}

fn volume(root: &At<'_>, said: &mut Warnings) {
    let spec = root.field("spec");
    annotation(root, STORAGE_CLASS, STORAGE_CLASS_TEXT, said);
    let text = "deprecated since v1.31; use \"mountOptions\" attribute instead";
    annotation(root, "volume.beta.kubernetes.io/mount-options", text, said);
    if spec.str_of("persistentVolumeReclaimPolicy") == "Recycle" {
        let text = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";
        say(&spec.path.child("persistentVolumeReclaimPolicy"), text, said);
    }
    for term in spec.field("nodeAffinity").field("required").each("nodeSelectorTerms") {
        labels::term(&term, false, said);
    }
    let mut gone: Vec<_> = GONE.iter().filter(|(source, ..)| spec.has(source)).collect();
    gone.sort_by_key(|(_, order, _)| *order);
    for (source, _, text) in gone.into_iter().filter(|(_, order, _)| order.is_some()) {
        say(&source_path(&spec.path, source), text, said);
    }
}

fn quota(spec: &Value, said: &mut Warnings) {
    let hard = spec.at("hard");
    for name in ["cpu", "memory", "storage", "ephemeral-storage"] {
        let mut request = format!("requests.{name}");
        if !hard.has(&request) && matches!(name, "cpu" | "memory") {
            name.clone_into(&mut request);
        }
        let limit = format!("limits.{name}");
        let amount = |name: &str| hard.text(name).parse::<Quantity>();
        if let (Ok(asked), Ok(most)) = (amount(&request), amount(&limit))
            && asked > most
        {
            said.push(format!(
                "ResourceQuota {request} ({asked}) should be less than {limit} ({most})"
            ));
        }
    }
}

fn node(spec: &At<'_>, said: &mut Warnings) {
    if spec.has("configSource") {
        say(&spec.path.child("configSource"), "the feature is removed", said);
    }
    if !spec.str_of("externalID").is_empty() {
        let text = "this field is deprecated, and is unused by Kubernetes";
        say(&spec.path.child("externalID"), text, said);
    }
    spec.each("podCIDRs").for_each(|range| address::range(&range, said));
}

fn endpoints(root: &At<'_>, said: &mut Warnings) {
    let labels = root.at("metadata").at("labels");
    if labels.text("endpoints.kubernetes.io/managed-by") == "endpoint-controller" {
        return;
    }
    for subset in root.each("subsets") {
        for one in ["addresses", "notReadyAddresses"].into_iter().flat_map(|list| subset.each(list))
        {
            address::ip(&one.field("ip"), said);
        }
    }
}

#[cfg(test)]
mod tests;
