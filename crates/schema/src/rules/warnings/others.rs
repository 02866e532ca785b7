//! Warnings about kinds of other groups than those of workloads.

use serde_json::Value;

use super::{Warnings, address, labels, say};
use crate::rules::at::At;
use crate::view::{View, same};

const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const TOKENS: &str = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes";

/// What to warn of in an object of such a kind.
pub(super) fn of(group: &str, kind: &str, root: &At<'_>, old: Option<&Value>, said: &mut Warnings) {
    match (group, kind) {
        ("discovery.k8s.io", "EndpointSlice") => slice(root, old.is_none(), said),
        ("networking.k8s.io", "Ingress") if old.is_none() => {
            let has_class = root.at("spec").has("ingressClassName");
            if root.at("metadata").at("annotations").has(INGRESS_CLASS) && !has_class {
                said.push(format!(
                    "annotation \"{INGRESS_CLASS}\" is deprecated, please use 'spec.ingressClassName' instead"
                ));
            }
        }
        ("networking.k8s.io", "NetworkPolicy") => policy(&root.field("spec"), said),
        ("node.k8s.io", "RuntimeClass") => {
            let selector = root.field("scheduling").field("nodeSelector");
            for key in selector.value.as_object().into_iter().flatten().map(|(key, _)| key) {
                if let Some(text) = labels::deprecated(key) {
                    say(&selector.path, text, said);
                }
            }
        }
        ("storage.k8s.io", "CSIDriver") => {
            let (spec, before) = (root.at("spec"), old.map(|old| old.at("spec")));
            let asks = !spec.items("tokenRequests").is_empty();
            let new = before
                .is_none_or(|before| !same(before.at("tokenRequests"), spec.at("tokenRequests")));
            if asks && new && !spec.has("serviceAccountTokenInSecrets") {
                said.push(TOKENS.to_owned());
            }
        }
        ("storage.k8s.io", "CSIStorageCapacity") => {
            let topology = root.field("nodeTopology");
            labels::term(&topology, false, said);
            for key in topology.entries("matchLabels").keys() {
                if let Some(text) = labels::deprecated(key) {
                    say(&topology.path.child("matchLabels").child(key), text, said);
                }
            }
        }
        ("storage.k8s.io", "StorageClass") => {
            for topology in root.each("allowedTopologies") {
                for key in topology.each("matchLabelExpressions").map(|e| e.field("key")) {
                    if let Some(text) = labels::deprecated(key.str()) {
                        say(&key.path, text, said);
                    }
                }
            }
        }
        _ => {}
    }
}

/// What the cluster's own controllers write needs no second look.
fn slice(slice: &At<'_>, is_new: bool, said: &mut Warnings) {
    if is_new && slice.str_of("addressType") == "FQDN" {
        let path = slice.path.child("spec").child("addressType");
        say(&path, "FQDN endpoints are deprecated", said);
    }
    let manager = slice.at("metadata").at("labels").text(MANAGED_BY);
    if matches!(
        manager,
        "endpointslice-controller.k8s.io" | "endpointslicemirroring-controller.k8s.io"
    ) {
        return;
    }
    for endpoint in slice.each("endpoints") {
        endpoint.each("addresses").for_each(|ip| address::ip(&ip, said));
    }
}

fn policy(spec: &At<'_>, said: &mut Warnings) {
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for peer in spec.each(list).flat_map(|rule| rule.each(peers)) {
            let block = peer.field("ipBlock");
            address::range(&block.field("cidr"), said);
            block.each("except").for_each(|range| address::range(&range, said));
        }
    }
}
