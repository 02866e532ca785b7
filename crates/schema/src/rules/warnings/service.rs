//! Warnings about Services.

use serde_json::Value;

use super::{Warnings, address};
use crate::rules::at::At;
use crate::view::View;

const OLD_HINTS: &str = "service.kubernetes.io/topology-aware-hints";

/// Warns of a Service.
pub(super) fn service(spec: &At<'_>, meta: &Value, said: &mut Warnings) {
    let say = |text: &str, said: &mut Warnings| said.push(text.to_owned());
    let (kind, ip) = (spec.str_of("type"), spec.str_of("clusterIP"));
    let (headless, external) = (kind == "ClusterIP" && ip == "None", kind == "ExternalName");
    let outer = !spec.items("externalIPs").is_empty();
    if meta.at("annotations").has(OLD_HINTS) {
        let text = format!(
            "annotation {OLD_HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"
        );
        say(&text, said);
    }
    if !matches!(ip, "" | "None") {
        spec.each("clusterIPs").for_each(|ip| address::ip(&ip, said));
    }
    if headless {
        if !spec.str_of("loadBalancerIP").is_empty() {
            say("spec.loadBalancerIP is ignored for headless services", said);
        }
        if outer {
            say("spec.externalIPs is ignored for headless services", said);
        }
        if spec.str_of("sessionAffinity") != "None" {
            say("spec.SessionAffinity is ignored for headless services", said);
        }
    }
    spec.each("externalIPs").for_each(|ip| address::ip(&ip, said));
    if outer && !headless && !external {
        let text =
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
        say(text, said);
    }
    address::ip(&spec.field("loadBalancerIP"), said);
    spec.each("loadBalancerSourceRanges").for_each(|range| address::range(&range, said));
    if external && outer {
        say("spec.externalIPs is ignored when spec.type is \"ExternalName\"", said);
    }
    if !external && !spec.str_of("externalName").is_empty() {
        say("spec.externalName is ignored when spec.type is not \"ExternalName\"", said);
    }
    if spec.str_of("trafficDistribution") == "PreferClose" {
        say(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
            said,
        );
    }
}
