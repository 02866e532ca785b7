//! Claims, volumes and classes of volume attributes stay while somebody uses them: a finalizer keeps them, which
//! goes when they are deleted and nobody does.
//!
//! Admission adds the finalizers; one that is missing is added here. Source of the rules: KEP-498 and its kin.

use client::{Cache, Caches, ObjectKey};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::VolumeAttributesClass,
};
use kube::{
    Api, Resource,
    api::{ApiResource, ListParams},
};
use reconcile::{
    Action, ApplyError, Context, Controller, Deps, Outcome, Plan, Reconciler, Runtime, Wrote,
    apply, itself,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::objects::{controller, name, uid};

/// Names in logs, metrics and `--controllers`.
pub(crate) const CLAIMS: &str = "persistentvolumeclaim-protection-controller";
pub(crate) const VOLUMES: &str = "persistentvolume-protection-controller";
pub(crate) const CLASSES: &str = "volumeattributesclass-protection-controller";

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";
const CLASS: &str = "kubernetes.io/vac-protection";

/// Protects claims until `shutdown`.
pub(crate) async fn run_claims(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let (claims, pods) = (caches.cache::<PersistentVolumeClaim>(), caches.cache::<Pod>());
    Runtime::new(CLAIMS, deps)
        .watch(&claims, itself)
        .watch(&pods, |change| {
            // A pod that begins to use a claim does not free it.
            let gone = change.after.as_deref().is_none_or(is_shut_down);
            match change.object().filter(|_| gone) {
                Some(pod) => used_by(pod)
                    .map(|claim| ObjectKey::namespaced(change.key.namespace(), claim))
                    .collect(),
                None => Vec::new(),
            }
        })
        .run_reconciler(Claims { claims }, shutdown)
        .await;
}

/// Protects volumes until `shutdown`.
pub(crate) async fn run_volumes(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let volumes = caches.cache::<PersistentVolume>();
    Runtime::new(VOLUMES, deps).watch(&volumes, itself).run(Volumes { volumes }, shutdown).await;
}

/// Protects classes of volume attributes until `shutdown`.
pub(crate) async fn run_classes(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let classes = caches.cache::<VolumeAttributesClass>();
    let (claims, volumes) =
        (caches.cache::<PersistentVolumeClaim>(), caches.cache::<PersistentVolume>());
    let of = |names: Vec<&str>| names.into_iter().map(ObjectKey::cluster).collect();
    Runtime::new(CLASSES, deps)
        .watch(&classes, itself)
        .watch(&claims, move |change| {
            of(change.before.as_deref().map(classes_of_claim).unwrap_or_default())
        })
        .watch(&volumes, move |change| {
            of(change.before.as_deref().and_then(class_of_volume).into_iter().collect())
        })
        .run(Classes { classes, claims, volumes }, shutdown)
        .await;
}

/// What becomes of the finalizer; `in_use` is asked only if the object is going.
fn settle<K: Resource<DynamicType = ()>>(
    object: &K,
    finalizer: &str,
    in_use: impl FnOnce() -> bool,
) -> Option<Action> {
    let meta = object.meta();
    let all = meta.finalizers.clone().unwrap_or_default();
    let held = all.iter().any(|one| one == finalizer);
    let finalizers: Vec<String> = match (meta.deletion_timestamp.is_some(), held) {
        (false, false) => all.into_iter().chain([finalizer.to_owned()]).collect(),
        (true, true) if !in_use() => all.into_iter().filter(|one| one != finalizer).collect(),
        _ => return None,
    };
    Some(Action::patch_exact(object, json!({"metadata": {"finalizers": finalizers}})))
}

/// The claims that a pod's volumes name, those made for the pod included.
fn used_by(pod: &Pod) -> impl Iterator<Item = String> + '_ {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| match &volume.persistent_volume_claim {
        Some(source) => Some(source.claim_name.clone()),
        None => volume.ephemeral.as_ref().map(|_| made_for(pod, &volume.name)),
    })
}

fn made_for(pod: &Pod, volume: &str) -> String {
    format!("{}-{volume}", name(&pod.metadata))
}

/// Whether nothing of the pod is left on its node.
fn is_shut_down(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
        && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// Whether a pod keeps a claim: one that has no node yet will not get the claim any more.
fn keeps(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let Some(spec) = pod.spec.as_ref().filter(|spec| spec.node_name.is_some()) else {
        return false;
    };
    let wanted = name(&claim.metadata);
    spec.volumes.iter().flatten().any(|volume| match &volume.persistent_volume_claim {
        Some(source) => source.claim_name == wanted,
        None => {
            let own =
                controller(&claim.metadata).is_some_and(|owner| owner.uid == uid(&pod.metadata));
            volume.ephemeral.is_some()
                && own
                && !is_shut_down(pod)
                && made_for(pod, &volume.name) == wanted
        }
    })
}

struct Claims {
    claims: Cache<PersistentVolumeClaim>,
}

impl Reconciler for Claims {
    async fn reconcile(
        &self,
        key: &ObjectKey,
        _: Context,
        deps: &Deps,
    ) -> Result<Outcome, (ApplyError, Vec<Wrote>)> {
        let Some(claim) = self.claims.get_key(key) else { return Ok(Outcome::default()) };
        let mut pods = Vec::new();
        if claim.metadata.deletion_timestamp.is_some() {
            // A cache might not know yet of a pod that has just got its node.
            let api: Api<Pod> = Api::namespaced(deps.client.clone(), key.namespace());
            let listed = api.list(&ListParams::default()).await.map_err(|error| {
                let resource = ApiResource::erase::<Pod>(&());
                (ApplyError::request("listing", &resource, "", error), Vec::new())
            })?;
            pods = listed.items;
        }
        let in_use = || pods.iter().any(|pod| keeps(pod, &claim));
        let plan = Plan {
            actions: settle(&*claim, CLAIM, in_use).into_iter().collect(),
            ..Plan::default()
        };
        let wrote = apply(plan, &deps.client, &deps.events).await?;
        Ok(Outcome { wrote, ..Outcome::default() })
    }
}

struct Volumes {
    volumes: Cache<PersistentVolume>,
}

impl Controller for Volumes {
    type Snapshot = std::sync::Arc<PersistentVolume>;

    fn observe(&self, key: &ObjectKey) -> Option<Self::Snapshot> {
        self.volumes.get_key(key)
    }

    fn plan(&self, volume: &Self::Snapshot, _: &Context) -> Plan {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let action = settle(&**volume, VOLUME, || phase == Some("Bound"));
        Plan { actions: action.into_iter().collect(), ..Plan::default() }
    }
}

struct Classes {
    classes: Cache<VolumeAttributesClass>,
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
}

impl Controller for Classes {
    type Snapshot = (std::sync::Arc<VolumeAttributesClass>, bool);

    fn observe(&self, key: &ObjectKey) -> Option<Self::Snapshot> {
        let class = self.classes.get_key(key)?;
        let going = class.metadata.deletion_timestamp.is_some();
        let used = going
            && (self
                .claims
                .list()
                .iter()
                .any(|claim| classes_of_claim(claim).contains(&&*key.name))
                || self.volumes.list().iter().any(|one| class_of_volume(one) == Some(&*key.name)));
        Some((class, used))
    }

    fn plan(&self, (class, used): &Self::Snapshot, _: &Context) -> Plan {
        Plan { actions: settle(&**class, CLASS, || *used).into_iter().collect(), ..Plan::default() }
    }
}

fn classes_of_claim(claim: &PersistentVolumeClaim) -> Vec<&str> {
    let status = claim.status.as_ref();
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let current = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let target = status.and_then(|status| {
        status.modify_volume_status.as_ref()?.target_volume_attributes_class_name.as_deref()
    });
    [wanted, current, target].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

fn class_of_volume(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.volume_attributes_class_name.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::from_yaml;

    const GOING: &str =
        "deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [kubernetes.io/pvc-protection]";

    /// What is done about a claim `data` with this metadata, beside these pods.
    fn check(metadata: &str, pods: &[&str]) -> String {
        let claim: PersistentVolumeClaim =
            from_yaml(&format!("{{metadata: {{name: data, namespace: d, {metadata}}}}}"));
        let pods: Vec<Pod> = pods.iter().map(|pod| from_yaml(pod)).collect();
        let action = settle(&claim, CLAIM, || pods.iter().any(|pod| keeps(pod, &claim)));
        let plan = Plan { actions: action.into_iter().collect(), ..Plan::default() };
        crate::testing::told(&plan).join("; ")
    }

    #[test]
    fn a_claim_stays_while_a_pod_uses_it() {
        let pod = |node: &str, volume: &str| {
            format!(
                "{{metadata: {{name: p, uid: u}}, spec: {{{node} containers: [], volumes: [{volume}]}}}}"
            )
        };
        let uses = "{name: v, persistentVolumeClaim: {claimName: data}}";
        let freed = r#"patch PersistentVolumeClaim data {"metadata":{"finalizers":[]}}"#;
        let (running, waiting) = (pod("nodeName: n,", uses), pod("", uses));
        assert_eq!(check(GOING, &[&running]), "");
        assert_eq!(check(GOING, &[&waiting]), freed);
        assert_eq!(check(GOING, &[]), freed);
        assert!(check("uid: x", &[]).contains(CLAIM), "a finalizer that is missing is added");
        assert_eq!(check("finalizers: [kubernetes.io/pvc-protection]", &[]), "");
    }

    #[test]
    fn a_claim_made_for_a_pod_goes_with_it() {
        let metadata = GOING.to_owned()
            + ", ownerReferences: [{apiVersion: v1, kind: Pod, name: p, uid: u, controller: true}]";
        let pod = |more: &str| {
            format!(
                "{{metadata: {{name: p, uid: u{more}}}, spec: {{nodeName: n, containers: [],
                   volumes: [{{name: v, ephemeral: {{}}}}]}}}}"
            )
        };
        let claim = |pods: &[&str]| {
            let claim: PersistentVolumeClaim =
                from_yaml(&format!("{{metadata: {{name: p-v, {metadata}}}}}"));
            let pods: Vec<Pod> = pods.iter().map(|pod| from_yaml(pod)).collect();
            settle(&claim, CLAIM, || pods.iter().any(|pod| keeps(pod, &claim))).is_some()
        };
        assert!(!claim(&[&pod("")]));
        assert!(claim(&[&pod(
            ", deletionTimestamp: '2026-01-01T00:00:00Z', deletionGracePeriodSeconds: 0"
        )]));
    }
}
