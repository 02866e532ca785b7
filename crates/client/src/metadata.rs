//! Objects of which only the metadata is asked for and kept. Knows no kind.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::{
    Resource,
    api::{ApiResource, DynamicObject},
};
use serde::{Deserialize, Deserializer, Serialize};

/// What says where an object is, to whom it belongs and whether it goes, without its kind: whoever asked knows it.
/// Labels, annotations and managed fields are not read.
///
/// kube's own `PartialObjectMeta` takes every object apart twice to find the kind, which counts where all objects
/// of a cluster are followed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
pub struct Metadata {
    /// The metadata.
    #[serde(default, deserialize_with = "read")]
    pub metadata: ObjectMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
    deletion_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
}

fn read<'de, D: Deserializer<'de>>(input: D) -> Result<ObjectMeta, D::Error> {
    let read = Read::deserialize(input)?;
    Ok(ObjectMeta {
        name: read.name,
        namespace: read.namespace,
        uid: read.uid,
        resource_version: read.resource_version,
        owner_references: read.owner_references,
        finalizers: read.finalizers,
        deletion_timestamp: read.deletion_timestamp,
        deletion_grace_period_seconds: read.deletion_grace_period_seconds,
        ..ObjectMeta::default()
    })
}

impl Resource for Metadata {
    type DynamicType = ApiResource;
    type Scope = <DynamicObject as Resource>::Scope;

    fn metadata_api() -> bool {
        true
    }

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(of)
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(of)
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(of)
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
