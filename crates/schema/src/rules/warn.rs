//! What clients are warned of although it is allowed: deprecated fields, and values that do not do what they
//! seem to.
//!
//! Texts are upstream's, for tools show and compare them. Refuses to know how warnings are sent.

mod address;
mod pod;
mod volume;

use meta::{GroupVersionKind, names};
use serde_json::Value;

use super::at::At;
use crate::view::View;
use address::{address, cidr};
use volume::{claim, topologies, volume};

/// Labels of nodes that have other names by now.
const OLD_LABELS: &[(&str, &str)] = &[
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
];

const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const HOSTNAME: &str = "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended";

/// Warnings about an object that is created, or changed where there is an old one.
#[must_use]
pub fn warnings(kind: &GroupVersionKind, object: &Value, old: Option<&Value>) -> Vec<String> {
    let root = At::root(object);
    let mut out = Vec::new();
    // Templates are looked at again when something changed that their controller acts upon.
    let news =
        old.is_none_or(|old| old["metadata"]["generation"] != object["metadata"]["generation"]);
    let spec = root.field("spec");
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") if old.is_none() => pod::warn(&root, false, &mut out),
        ("", "PodTemplate") => pod::warn(&root.field("template"), true, &mut out),
        ("apps", "Deployment" | "ReplicaSet") | ("", "ReplicationController") => {
            if old.is_none() {
                hostname(object, &mut out);
            }
            if news {
                pod::warn(&spec.field("template"), true, &mut out);
            }
        }
        ("apps", "DaemonSet") if news => pod::warn(&spec.field("template"), true, &mut out),
        ("apps", "StatefulSet") => stateful_set(&spec, news, &mut out),
        ("batch", "Job" | "CronJob") => jobs(kind, &root, old, news, &mut out),
        ("", "Service") => service(&root, &mut out),
        ("", "PersistentVolume") => volume(&root, &mut out),
        ("", "PersistentVolumeClaim") => {
            annotation(
                &root,
                OLD_CLASS,
                "deprecated since v1.8; use \"storageClassName\" attribute instead",
                &mut out,
            );
            claim(&spec, &mut out);
        }
        ("", "Node") => node(&spec, &mut out),
        ("", "Endpoints") => endpoints(&root, &mut out),
        ("discovery.k8s.io", "EndpointSlice") => slice(&root, old, &mut out),
        ("networking.k8s.io", "Ingress") => ingress(object, old, &mut out),
        ("networking.k8s.io", "NetworkPolicy") => policy(&spec, &mut out),
        ("node.k8s.io", "RuntimeClass") => {
            for key in root.field("scheduling").value.entries("nodeSelector").keys() {
                out.extend(old_label(key).map(|text| format!("scheduling.nodeSelector: {text}")));
            }
        }
        ("storage.k8s.io", "StorageClass") => topologies(&root, &mut out),
        ("storage.k8s.io", "CSIStorageCapacity") => {
            label_selector(&root.field("nodeTopology"), &mut out);
        }
        _ => {}
    }
    out
}

/// What became of a label of nodes, if it is an old one.
fn old_label(key: &str) -> Option<&'static str> {
    let at = OLD_LABELS.binary_search_by(|(label, _)| (*label).cmp(key)).ok()?;
    Some(OLD_LABELS[at].1)
}

fn annotation(object: &At<'_>, key: &str, text: &str, out: &mut Vec<String>) {
    let annotations = object.field("metadata").field("annotations");
    if annotations.value.has(key) {
        out.push(format!("{}: {text}", annotations.path.key(key)));
    }
}

fn hostname(object: &Value, out: &mut Vec<String>) {
    let problems = names::is_dns1123_label(object["metadata"].text("name"));
    if !problems.is_empty() {
        out.push(format!("{HOSTNAME}: [{}]", problems.join(" ")));
    }
}

fn jobs(
    kind: &GroupVersionKind,
    root: &At<'_>,
    old: Option<&Value>,
    news: bool,
    out: &mut Vec<String>,
) {
    let cron = kind.kind == "CronJob";
    let spec = root.field("spec");
    if old.is_none() {
        hostname(root.value, out);
    }
    let job = if cron { spec.field("jobTemplate").field("spec") } else { spec.clone() };
    if news {
        let number = |name: &str| job.value.int(name).unwrap_or(0);
        if job.value.text("completionMode") == "Indexed"
            && number("completions") > 100_000
            && number("parallelism") > 10_000
        {
            out.push(format!("{}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail", job.path));
        }
        pod::warn(&job.field("template"), true, out);
    }
    if cron && old.is_some() && spec.value.text("schedule").contains("TZ") {
        out.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".to_owned());
    }
}

fn stateful_set(spec: &At<'_>, news: bool, out: &mut Vec<String>) {
    if news {
        pod::warn(&spec.field("template"), true, out);
        for template in spec.each("volumeClaimTemplates") {
            let path = template.path.clone();
            claim(&At { path, ..template.field("spec") }, out);
        }
    }
    if spec.value.int("revisionHistoryLimit").is_some_and(|limit| limit < 0) {
        out.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
    }
}

fn service(root: &At<'_>, out: &mut Vec<String>) {
    let spec = root.field("spec");
    if root.value["metadata"].at("annotations").has("service.kubernetes.io/topology-aware-hints") {
        out.push("annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead".to_owned());
    }
    let kind = spec.value.text("type");
    let headless = kind == "ClusterIP" && spec.value.text("clusterIP") == "None";
    if !matches!(spec.value.text("clusterIP"), "" | "None") {
        spec.each("clusterIPs").for_each(|ip| address(&ip, out));
    }
    let external = !spec.value.items("externalIPs").is_empty();
    if headless {
        for (there, field) in [
            (!spec.value.text("loadBalancerIP").is_empty(), "loadBalancerIP"),
            (external, "externalIPs"),
            (spec.value.text("sessionAffinity") != "None", "SessionAffinity"),
        ] {
            if there {
                out.push(format!("spec.{field} is ignored for headless services"));
            }
        }
    }
    spec.each("externalIPs").for_each(|ip| address(&ip, out));
    if external && !headless && kind != "ExternalName" {
        out.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
                .to_owned(),
        );
    }
    if let Some(ip) = spec.some("loadBalancerIP") {
        address(&ip, out);
    }
    spec.each("loadBalancerSourceRanges").for_each(|range| cidr(&range, out));
    if kind == "ExternalName" && external {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if kind != "ExternalName" && !spec.value.text("externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.value.text("trafficDistribution") == "PreferClose" {
        out.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""
                .to_owned(),
        );
    }
}

fn node(spec: &At<'_>, out: &mut Vec<String>) {
    if spec.value.has("configSource") {
        out.push("spec.configSource: the feature is removed".to_owned());
    }
    if !spec.value.text("externalID").is_empty() {
        out.push(
            "spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned(),
        );
    }
    spec.each("podCIDRs").for_each(|range| cidr(&range, out));
}

fn endpoints(root: &At<'_>, out: &mut Vec<String>) {
    let managed = "endpoints.kubernetes.io/managed-by";
    if root.value["metadata"].at("labels").text(managed) == "endpoint-controller" {
        return;
    }
    for subset in root.each("subsets") {
        for list in ["addresses", "notReadyAddresses"] {
            subset.each(list).for_each(|one| address(&one.field("ip"), out));
        }
    }
}

fn slice(root: &At<'_>, old: Option<&Value>, out: &mut Vec<String>) {
    if old.is_none() && root.value.text("addressType") == "FQDN" {
        out.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    let managed =
        root.value["metadata"].at("labels").text("endpointslice.kubernetes.io/managed-by");
    if root.value.text("addressType") == "FQDN" || managed.starts_with("endpointslice") {
        return;
    }
    for endpoint in root.each("endpoints") {
        endpoint.each("addresses").for_each(|ip| address(&ip, out));
    }
}

fn ingress(object: &Value, old: Option<&Value>, out: &mut Vec<String>) {
    let class = "kubernetes.io/ingress.class";
    if old.is_none() && object["metadata"].at("annotations").has(class) {
        out.push(format!(
            "annotation {class:?} is deprecated, please use 'spec.ingressClassName' instead"
        ));
    }
}

fn policy(spec: &At<'_>, out: &mut Vec<String>) {
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for peer in spec.each(rules).flat_map(|rule| rule.each(peers)) {
            if let Some(block) = peer.some("ipBlock") {
                cidr(&block.field("cidr"), out);
                block.each("except").for_each(|range| cidr(&range, out));
            }
        }
    }
}

fn label_selector(selector: &At<'_>, out: &mut Vec<String>) {
    node_term(selector, false, out);
    let labels = selector.field("matchLabels");
    for key in labels.value.as_object().into_iter().flatten().map(|(key, _)| key) {
        out.extend(old_label(key).map(|text| format!("{}: {text}", labels.path.child(key))));
    }
}

/// Expressions over labels of nodes.
fn node_term(term: &At<'_>, values: bool, out: &mut Vec<String>) {
    for expression in term.each("matchExpressions") {
        let key = expression.field("key");
        out.extend(
            old_label(key.str()).map(|text| format!("{}: {} is {text}", key.path, key.str())),
        );
        for value in expression.each("values").filter(|_| values) {
            for problem in names::is_label_value(value.str()) {
                out.push(format!("{}: {} is invalid, {problem}", value.path, value.str()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
