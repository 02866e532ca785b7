//! Which objects belong to a controller: owned and selected ones do; selected orphans are
//! adopted; owned ones that are no longer selected are released.
//!
//! Knows nothing of kinds. Source of the rules: the controller reference design of the API.

use std::sync::Arc;

use kube::Resource;
use meta::Selector;
use reconcile::Action;
use serde_json::json;

use crate::objects::{controller, controller_reference, selects, uid};

/// What belongs to a controller, and the writes that make it so.
pub(crate) struct Claims<K> {
    /// Adopted ones included, released ones not.
    pub(crate) claimed: Vec<Arc<K>>,
    /// Adoptions and releases.
    pub(crate) actions: Vec<Action>,
}

/// Sorts `candidates` (owned by `owner` or by nobody, of its namespace) into claims.
pub(crate) fn claim<Owner, K>(
    owner: &Owner,
    selector: &Selector,
    candidates: impl IntoIterator<Item = Arc<K>>,
) -> Claims<K>
where
    Owner: Resource<DynamicType = ()>,
    K: Resource<DynamicType = ()>,
{
    let mut claims = Claims { claimed: Vec::new(), actions: Vec::new() };
    let leaving = owner.meta().deletion_timestamp.is_some();
    for object in candidates {
        let meta = object.meta();
        let matches = selects(selector, meta);
        match controller(meta) {
            Some(reference) if reference.uid != uid(owner.meta()) => {}
            Some(_) if matches => claims.claimed.push(object),
            Some(_) => {
                if !leaving && meta.deletion_timestamp.is_none() {
                    claims.actions.push(release(owner, &*object));
                }
            }
            None => {
                if matches && !leaving && meta.deletion_timestamp.is_none() {
                    claims.actions.push(adopt(owner, &*object));
                    claims.claimed.push(object);
                }
            }
        }
    }
    claims
}

fn adopt<Owner, K>(owner: &Owner, object: &K) -> Action
where
    Owner: Resource<DynamicType = ()>,
    K: Resource<DynamicType = ()>,
{
    let mut owners = object.meta().owner_references.clone().unwrap_or_default();
    owners.retain(|known| known.uid != uid(owner.meta()));
    owners.push(controller_reference(owner));
    Action::patch_exact(object, json!({ "metadata": { "ownerReferences": owners } }))
}

fn release<Owner, K>(owner: &Owner, object: &K) -> Action
where
    Owner: Resource<DynamicType = ()>,
    K: Resource<DynamicType = ()>,
{
    let mut owners = object.meta().owner_references.clone().unwrap_or_default();
    owners.retain(|known| known.uid != uid(owner.meta()));
    Action::patch_exact(object, json!({ "metadata": { "ownerReferences": owners } }))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};

    use super::*;
    use crate::testing::from_yaml;

    fn check(pod: &str) -> (usize, usize) {
        let owner: ReplicaSet =
            from_yaml("{metadata: {name: web, namespace: default, uid: rs}, spec: {selector: {}}}");
        let pod: Pod = from_yaml(pod);
        let selector = Selector::parse("app=web").expect("valid");
        let claims = claim(&owner, &selector, [Arc::new(pod)]);
        (claims.claimed.len(), claims.actions.len())
    }

    #[test]
    fn owned_orphaned_and_foreign_objects() {
        let owned = "{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: rs, controller: true}";
        let foreign = "{apiVersion: apps/v1, kind: ReplicaSet, name: a, uid: no, controller: true}";
        let pod = |owners: &str, app: &str, more: &str| {
            format!("{{metadata: {{labels: {{app: {app}}}, ownerReferences: [{owners}]{more}}}}}")
        };
        let going = ", deletionTimestamp: '2026-01-01T00:00:00Z'";
        assert_eq!(check(&pod(owned, "web", "")), (1, 0));
        assert_eq!(check(&pod(owned, "web", going)), (1, 0));
        assert_eq!(check(&pod(owned, "other", "")), (0, 1), "released");
        assert_eq!(check(&pod(owned, "other", going)), (0, 0));
        assert_eq!(check(&pod(foreign, "web", "")), (0, 0));
        assert_eq!(check(&pod("", "web", "")), (1, 1), "adopted");
        assert_eq!(check(&pod("", "web", going)), (0, 0));
        assert_eq!(check(&pod("", "other", "")), (0, 0));
    }
}
