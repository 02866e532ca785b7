//! Carrying out the collector's decisions, one object at a time.
//!
//! Reads every object from the server before touching it: the graph only says where to look.

use std::sync::{Arc, RwLock};

use client::{ErrorExt, Metadata, ObjectKey};
use kube::{
    Resource,
    api::{
        DeleteParams, DynamicObject, GetParams, ObjectMeta, Patch, PatchParams, Preconditions,
        PropagationPolicy, Request,
    },
};
use parking_lot::Mutex;
use reconcile::{ApplyError, Context, Deps, Outcome, Propagation, Reconciler, Trigger, Wrote};
use serde_json::{Value, json};
use tracing::debug;

use super::{
    decide::{Decision, OwnerState, decide},
    graph::{FOREGROUND, Graph, Kind, Known, ORPHAN, Place, Uid},
};

/// What the collector shares with the watches that feed it.
pub(super) struct Shared {
    pub(super) graph: Mutex<Graph>,
    /// The resources followed.
    pub(super) kinds: RwLock<Vec<Arc<Kind>>>,
    pub(super) trigger: Trigger,
}

impl Shared {
    /// Looks at these objects soon.
    pub(super) fn look_at(&self, uids: Vec<Uid>) {
        for uid in uids {
            self.trigger.run(ObjectKey::cluster(&*uid));
        }
    }

    /// The resource an owner reference names, in whatever version it is followed.
    fn kind_of(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        let (group, _) = meta::kind::split_api_version(api_version)?;
        let kinds = self.kinds.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        kinds.iter().find(|one| one.resource.group == group && one.resource.kind == kind).cloned()
    }
}

/// Looks at objects by uid.
pub(super) struct Collector {
    pub(super) shared: Arc<Shared>,
}

impl Reconciler for Collector {
    async fn reconcile(
        &self,
        key: &ObjectKey,
        _: Context,
        deps: &Deps,
    ) -> Result<Outcome, (ApplyError, Vec<Wrote>)> {
        let place = self.shared.graph.lock().place(&key.name);
        let Some(place) = place else { return Ok(Outcome::default()) };
        match self.look_at(&place, &deps.client).await {
            Ok(()) => Ok(Outcome::default()),
            Err(error) => {
                let resource = &place.kind.resource;
                Err((ApplyError::request("collecting", resource, &place.name, error), Vec::new()))
            }
        }
    }
}

impl Collector {
    async fn look_at(&self, place: &Place, client: &kube::Client) -> Result<(), kube::Error> {
        let Some(meta) = get(client, place).await? else {
            let affected = self.shared.graph.lock().forget(&place.uid);
            self.shared.look_at(affected);
            return Ok(());
        };
        let owners = self.owner_states(place, &meta, client).await?;
        let dependents = self.shared.graph.lock().dependents(&place.uid, false);
        match decide(&meta, &owners, !dependents.is_empty()) {
            Decision::Keep => Ok(()),
            Decision::Orphan => {
                for dependent in &dependents {
                    disown(client, dependent, &place.uid).await?;
                }
                remove_finalizer(client, place, &meta, ORPHAN).await
            }
            Decision::WaitForDependents => {
                let blocking = self.shared.graph.lock().dependents(&place.uid, true);
                if blocking.is_empty() {
                    return remove_finalizer(client, place, &meta, FOREGROUND).await;
                }
                self.shared.look_at(blocking.into_iter().map(|dependent| dependent.uid).collect());
                Ok(())
            }
            Decision::Disown(kept) => {
                let patch = json!({ "metadata": {
                    "resourceVersion": meta.resource_version, "ownerReferences": kept } });
                patch_metadata(client, place, &patch).await
            }
            Decision::Delete(propagation) => {
                if propagation == Propagation::Foreground
                    && self.shared.graph.lock().has_waiting_dependent(&place.uid)
                {
                    // In a circle of owners each would wait for the next: let this one go.
                    unblock(client, place, &meta).await?;
                }
                debug!(
                    kind = place.kind.resource.kind,
                    name = place.name,
                    ?propagation,
                    "collecting"
                );
                delete(client, place, &meta, propagation).await
            }
        }
    }

    async fn owner_states(
        &self,
        place: &Place,
        meta: &ObjectMeta,
        client: &kube::Client,
    ) -> Result<Vec<OwnerState>, kube::Error> {
        let mut states = Vec::new();
        if meta.deletion_timestamp.is_some() {
            return Ok(states);
        }
        for reference in meta.owner_references.iter().flatten() {
            let known = self.shared.graph.lock().known(&reference.uid);
            states.push(match known {
                Known::Exists => OwnerState::Solid,
                Known::Waiting => OwnerState::Waiting,
                Known::Absent => OwnerState::Absent,
                Known::Unknown => {
                    let Some(kind) = self.shared.kind_of(&reference.api_version, &reference.kind)
                    else {
                        // Perhaps its API is only away for a while.
                        states.push(OwnerState::Solid);
                        continue;
                    };
                    if kind.namespaced && place.namespace.is_none() {
                        // Not a valid reference: nobody can tell which namespace is meant.
                        states.push(OwnerState::Solid);
                        continue;
                    }
                    let namespace = place.namespace.clone().filter(|_| kind.namespaced);
                    let uid = Uid::from(reference.uid.as_str());
                    let owner = Place { kind, namespace, name: reference.name.clone(), uid };
                    match get(client, &owner).await? {
                        None => {
                            self.shared.graph.lock().note_absent(&reference.uid);
                            OwnerState::Absent
                        }
                        Some(meta) if is_waiting(&meta) => OwnerState::Waiting,
                        Some(_) => OwnerState::Solid,
                    }
                }
            });
        }
        Ok(states)
    }
}

fn is_waiting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
        && meta.finalizers.iter().flatten().any(|finalizer| finalizer == FOREGROUND)
}

fn request(place: &Place) -> Request {
    Request::new(DynamicObject::url_path(&place.kind.resource, place.namespace.as_deref()))
}

/// The object's metadata; `None` if it, with this uid, does not exist.
async fn get(client: &kube::Client, place: &Place) -> Result<Option<ObjectMeta>, kube::Error> {
    let request = request(place)
        .get_metadata(&place.name, &GetParams::default())
        .map_err(kube::Error::BuildRequest)?;
    match client.request::<Metadata>(request).await {
        Ok(object) if object.metadata.uid.as_deref() == Some(&*place.uid) => {
            Ok(Some(object.metadata))
        }
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn patch_metadata(
    client: &kube::Client,
    place: &Place,
    patch: &Value,
) -> Result<(), kube::Error> {
    let request = request(place)
        .patch_metadata(&place.name, &PatchParams::default(), &Patch::Merge(patch))
        .map_err(kube::Error::BuildRequest)?;
    match client.request_text(request).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

async fn remove_finalizer(
    client: &kube::Client,
    place: &Place,
    meta: &ObjectMeta,
    finalizer: &str,
) -> Result<(), kube::Error> {
    let kept: Vec<_> =
        meta.finalizers.iter().flatten().filter(|known| *known != finalizer).collect();
    let patch = json!({ "metadata": {
        "resourceVersion": meta.resource_version, "finalizers": kept } });
    patch_metadata(client, place, &patch).await
}

/// Takes the reference to `owner` off a dependent.
async fn disown(client: &kube::Client, place: &Place, owner: &str) -> Result<(), kube::Error> {
    let Some(meta) = get(client, place).await? else { return Ok(()) };
    let mut references = meta.owner_references.unwrap_or_default();
    let before = references.len();
    references.retain(|reference| reference.uid != owner);
    if references.len() == before {
        return Ok(());
    }
    let patch = json!({ "metadata": {
        "resourceVersion": meta.resource_version, "ownerReferences": references } });
    patch_metadata(client, place, &patch).await
}

/// Makes an object's owners not wait for it.
async fn unblock(
    client: &kube::Client,
    place: &Place,
    meta: &ObjectMeta,
) -> Result<(), kube::Error> {
    let mut references = meta.owner_references.clone().unwrap_or_default();
    if references.iter().all(|reference| reference.block_owner_deletion != Some(true)) {
        return Ok(());
    }
    for reference in &mut references {
        reference.block_owner_deletion = Some(false);
    }
    patch_metadata(client, place, &json!({ "metadata": { "ownerReferences": references } })).await
}

async fn delete(
    client: &kube::Client,
    place: &Place,
    meta: &ObjectMeta,
    propagation: Propagation,
) -> Result<(), kube::Error> {
    let params = DeleteParams {
        propagation_policy: Some(match propagation {
            Propagation::Background => PropagationPolicy::Background,
            Propagation::Foreground => PropagationPolicy::Foreground,
            Propagation::Orphan => PropagationPolicy::Orphan,
        }),
        preconditions: Some(Preconditions {
            uid: meta.uid.clone(),
            // Its owners may have changed since: then this is to be decided anew. Our own
            // unblocking would change it too, and has no bearing on the decision.
            resource_version: (propagation != Propagation::Foreground)
                .then(|| meta.resource_version.clone())
                .flatten(),
        }),
        ..DeleteParams::default()
    };
    let request = request(place).delete(&place.name, &params).map_err(kube::Error::BuildRequest)?;
    match client.request_text(request).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
