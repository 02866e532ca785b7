//! LimitPodHardAntiAffinityTopology: pods keep others away from their node, and from nothing larger.

use registry::{Admit, Attributes, Operation, Row};
use serde_json::Value;

use super::{Admitted, decided, each, fine, forbid, is_pod, text};

const HOST: &str = "kubernetes.io/hostname";

/// The plugin.
pub(super) struct LimitPodHardAntiAffinityTopology;

impl Admit for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        matches!(operation, Operation::Create | Operation::Update) && is_pod(row, subresource)
    }

    fn validate<'a>(&'a self, write: &'a Attributes<'a>, pod: Option<&'a Value>) -> Admitted<'a> {
        let Some(pod) = pod else { return fine() };
        let affinity = &pod["spec"]["affinity"]["podAntiAffinity"];
        let mut keys = each(affinity, "requiredDuringSchedulingIgnoredDuringExecution")
            .map(|term| text(term, "topologyKey"));
        let Some(key) = keys.find(|key| *key != HOST) else { return fine() };
        let why = format!(
            "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOST} is allowed"
        );
        decided(Err(forbid(write, Some(pod), why)))
    }
}
