//! Writing the status subresource. Knows nothing of what a status says.

use kube::{
    Api, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::ErrorExt;

/// Attempts at a status update that meets conflicts.
const ATTEMPTS: usize = 5;

/// What became of a status update.
#[derive(Debug, PartialEq, Eq)]
pub enum StatusUpdate {
    /// Written.
    Written,
    /// The change function found nothing to change.
    Unchanged,
    /// The object no longer exists.
    Gone,
}

/// Merges `status` into the object's status without a precondition. A 404 is an error.
pub async fn patch_status<K>(api: &Api<K>, name: &str, status: Value) -> Result<K, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let patch = json!({ "status": status });
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await
}

/// Reads the object, lets `change` edit it and writes its status, again on conflict.
///
/// `change` returns whether there is something to write; it may run several times.
pub async fn update_status<K>(
    api: &Api<K>,
    name: &str,
    mut change: impl FnMut(&mut K) -> bool,
) -> Result<StatusUpdate, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let mut attempt = 1;
    loop {
        let Some(mut object) = api.get_opt(name).await? else { return Ok(StatusUpdate::Gone) };
        if !change(&mut object) {
            return Ok(StatusUpdate::Unchanged);
        }
        match api.replace_status(name, &PostParams::default(), &object).await {
            Ok(_) => return Ok(StatusUpdate::Written),
            Err(error) if error.is_not_found() => return Ok(StatusUpdate::Gone),
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}
