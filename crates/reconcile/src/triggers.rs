//! Ready-made mappings from a changed object to the keys to run.
//!
//! Knows nothing of kinds but what their metadata says.

use client::{Change, Object, ObjectKey};
use kube::Resource;

/// The changed object's own key.
pub fn itself<K>(change: &Change<K>) -> Vec<ObjectKey> {
    vec![change.key.clone()]
}

/// The controlling owners, of kind `Owner`, of the object before and after the change.
pub fn controller_of<Owner, K>(change: &Change<K>) -> Vec<ObjectKey>
where
    Owner: Resource<DynamicType = ()>,
    K: Object,
{
    let mut keys = Vec::new();
    for object in [&change.before, &change.after].into_iter().flatten() {
        let Some(name) = owner_of::<Owner>(object.meta()) else { continue };
        let key = ObjectKey::new(object.meta().namespace.as_deref(), name);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// The name of the controlling owner if it is an `Owner` (any version of its group).
pub fn owner_of<Owner: Resource<DynamicType = ()>>(meta: &kube::api::ObjectMeta) -> Option<&str> {
    let owner =
        meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    (owner.kind == Owner::kind(&()) && group == Owner::group(&())).then_some(owner.name.as_str())
}
