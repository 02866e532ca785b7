//! Who a pod of a StatefulSet is: name, ordinal, host name, labels and claims. Pure.

use std::{ops::Range, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetSpec},
        core::v1::{
            PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::objects::{controller_reference, name};

/// Label with the pod's name.
pub(super) const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// Label with the pod's ordinal (KEP-4017).
pub(super) const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
/// Label with the name of the revision that the pod was made from.
pub(super) const REVISION: &str = "controller-revision-hash";

/// The ordinals that a set wants.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ordinals(pub(super) Range<i32>);

impl Ordinals {
    pub(super) fn of(spec: &StatefulSetSpec) -> Self {
        let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
        Self(start..start.saturating_add(spec.replicas.unwrap_or(1)))
    }
}

/// The set and the ordinal in a pod's name.
pub(super) fn parse(pod: &str) -> Option<(&str, i32)> {
    let (set, ordinal) = pod.rsplit_once('-')?;
    let digits = !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit());
    (digits && !set.is_empty()).then(|| Some((set, ordinal.parse().ok()?)))?
}

/// The pod's ordinal.
pub(super) fn ordinal(pod: &Pod) -> Option<i32> {
    parse(name(&pod.metadata)).map(|(_, ordinal)| ordinal)
}

/// Whether the pod's name is one of the set's.
pub(super) fn is_member(set: &StatefulSet, pod: &Pod) -> bool {
    let (set, pod) = (name(&set.metadata), name(&pod.metadata));
    parse(pod).is_some_and(|(parent, ordinal)| parent == set && pod == pod_name(set, ordinal))
}

fn pod_name(set: &str, ordinal: i32) -> String {
    format!("{set}-{ordinal}")
}

/// The revision that a pod was made from.
pub(super) fn revision(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(REVISION)).map_or("", String::as_str)
}

/// The pod of that ordinal, made from a template of the named revision.
pub(super) fn new_pod(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    let own = pod_name(name(&set.metadata), ordinal);
    let mut labels = meta.labels.unwrap_or_default();
    for (key, value) in labels_of(&own, ordinal) {
        labels.insert(key.to_owned(), value);
    }
    labels.insert(REVISION.to_owned(), revision.to_owned());
    let mut pod_spec = template.spec.clone().unwrap_or_default();
    pod_spec.hostname = Some(own.clone());
    pod_spec.subdomain = spec.service_name.clone();
    let templates = spec.volume_claim_templates.iter().flatten();
    let claims: Vec<Volume> = templates
        .map(|claim| Volume {
            name: name(&claim.metadata).to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(set, claim, ordinal),
                read_only: None,
            }),
            ..Volume::default()
        })
        .collect();
    let volumes = pod_spec.volumes.get_or_insert_default();
    volumes.retain(|volume| !claims.iter().any(|claim| claim.name == volume.name));
    volumes.extend(claims);
    Pod {
        metadata: ObjectMeta {
            name: Some(own),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(pod_spec),
        status: None,
    }
}

/// The labels by which a pod of that name and ordinal is told from its siblings.
pub(super) fn labels_of(pod: &str, ordinal: i32) -> [(&'static str, String); 2] {
    [(POD_NAME, pod.to_owned()), (POD_INDEX, ordinal.to_string())]
}

/// The name of a pod's claim.
fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", name(&template.metadata), name(&set.metadata))
}

/// The names of the claims of all pods that there are or should be.
pub(super) fn claim_names(set: &StatefulSet, pods: &[Arc<Pod>]) -> Vec<String> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let there = pods.iter().filter_map(|pod| ordinal(pod));
    let mut ordinals: Vec<i32> = Ordinals::of(spec).0.chain(there).collect();
    ordinals.sort_unstable();
    ordinals.dedup();
    let templates = spec.volume_claim_templates.as_deref().unwrap_or_default();
    let names = templates.iter().flat_map(|template| {
        ordinals.iter().map(move |ordinal| claim_name(set, template, *ordinal))
    });
    names.collect()
}

/// The claims of the pod of that ordinal, as the templates have them.
pub(super) fn new_claims(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    ordinal: i32,
) -> Vec<PersistentVolumeClaim> {
    let templates = spec.volume_claim_templates.iter().flatten();
    let make = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(set, template, ordinal));
        claim.metadata.namespace.clone_from(&set.metadata.namespace);
        let labels = claim.metadata.labels.get_or_insert_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        claim.status = None;
        claim
    };
    templates.map(make).collect()
}
