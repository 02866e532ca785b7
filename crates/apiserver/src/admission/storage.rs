//! StorageObjectInUseProtection: volumes, claims and their attributes' classes go only when nobody uses them, and
//! a controller says so. PersistentVolumeClaimResize: a claim grows where its class allows that.

use meta::{Quantity, Status};
use registry::{Admit, Attributes, Operation, Row};
use serde_json::Value;

use super::{Admitted, child, decided, fine, forbid, is_core, list, read, text};

/// What keeps an object of which resource.
const FINALIZERS: &[(&str, &str, &str)] = &[
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

/// The plugin that adds finalizers.
pub(super) struct StorageObjectInUseProtection;

fn finalizer(row: &Row) -> Option<&'static str> {
    let found = FINALIZERS.iter().find(|(group, resource, _)| {
        row.resource.group == *group && row.resource.resource == *resource
    });
    found.map(|(_, _, finalizer)| *finalizer)
}

impl Admit for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        operation == Operation::Create && subresource.is_none() && finalizer(row).is_some()
    }

    fn mutate<'a>(&'a self, attributes: &'a Attributes<'a>, object: &'a mut Value) -> Admitted<'a> {
        if let Some(finalizer) = finalizer(attributes.row) {
            let finalizers = list(child(object, "metadata"), "finalizers");
            if !finalizers.iter().any(|known| known == finalizer) {
                finalizers.push(finalizer.into());
            }
        }
        fine()
    }
}

/// The plugin that judges growth.
pub(super) struct PersistentVolumeClaimResize;

impl Admit for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        operation == Operation::Update
            && is_core(row, "persistentvolumeclaims")
            && subresource.is_none()
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> Admitted<'a> {
        match (object, attributes.old) {
            (Some(claim), Some(old)) => decided(grow(attributes, claim, old)),
            _ => fine(),
        }
    }
}

fn grow(attributes: &Attributes<'_>, claim: &Value, old: &Value) -> Result<(), Status> {
    if size(claim) <= size(old) {
        return Ok(());
    }
    if old["status"]["phase"] != "Bound" {
        let why = "Only bound persistent volume claims can be expanded";
        return Err(forbid(attributes, Some(claim), why));
    }
    let name = class(claim);
    let allowed = !name.is_empty()
        && name == class(old)
        && read(attributes, "storage.k8s.io", "storageclasses", None, name)
            .is_some_and(|class| class["allowVolumeExpansion"] == true);
    if allowed {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    Err(forbid(attributes, Some(claim), why))
}

fn size(claim: &Value) -> Quantity {
    let size = claim["spec"]["resources"]["requests"]["storage"].as_str();
    size.and_then(|size| size.parse().ok()).unwrap_or_default()
}

/// The class of a claim: that of its old annotation, if it has one.
fn class(claim: &Value) -> &str {
    let beta = &claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
    beta.as_str().unwrap_or_else(|| text(&claim["spec"], "storageClassName"))
}
