//! Owner references: who made an object and whose end it shares. Knows no owner's kind.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// `apiVersion` of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner, in the object's namespace unless the owner is cluster scoped.
    pub name: String,
    /// Uid of the owner: the identity that counts.
    pub uid: String,
    /// Whether the owner is the managing controller; at most one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// Whether foreground deletion of the owner waits for this object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

impl OwnerReference {
    /// The reference a controller puts on what it creates.
    pub fn controller(
        api_version: impl Into<String>,
        kind: impl Into<String>,
        name: impl Into<String>,
        uid: impl Into<String>,
    ) -> Self {
        Self {
            api_version: api_version.into(),
            kind: kind.into(),
            name: name.into(),
            uid: uid.into(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}

/// Owner references of `object`; malformed entries are left out.
#[must_use]
pub fn of(object: &Value) -> Vec<OwnerReference> {
    let Some(references) = object.pointer("/metadata/ownerReferences").and_then(Value::as_array)
    else {
        return Vec::new();
    };
    references.iter().filter_map(|one| OwnerReference::deserialize(one).ok()).collect()
}

/// The managing controller of `object`, if it has one.
#[must_use]
pub fn controller_of(object: &Value) -> Option<OwnerReference> {
    of(object).into_iter().find(|reference| reference.controller == Some(true))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_the_controller() {
        let object = json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "1"},
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "b", "uid": "2", "controller": true},
        ]}});
        assert_eq!(of(&object).len(), 2);
        assert_eq!(controller_of(&object).unwrap().uid, "2");
        assert_eq!(controller_of(&json!({"metadata": {}})), None);
    }
}
