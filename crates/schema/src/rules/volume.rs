//! Rules of volume sources, which pods and persistent volumes share.
//!
//! Owns which types there are, in which order they are looked at, and that there is exactly one. Refuses to know
//! where the volume stands.

mod files;
mod kinds;

pub(super) use files::has_reserved_token_path;
pub(super) use kinds::is_root;

use meta::FieldPath;

use super::at::{At, Errors};
use crate::view::View;

/// Whose source it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A pod.
    Pod,
    /// A template of pods in another kind.
    Template,
    /// A persistent volume.
    Volume,
}

/// What the checks of a source may ask of what is around it.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) owner: Owner,
    /// Name of the volume.
    pub(super) name: &'a str,
    /// Whether an old object has tokens at paths that are not let in any more.
    pub(super) token_paths: bool,
    /// Whether a persistent volume says on which nodes it may be used.
    pub(super) has_nodes: bool,
}

/// Types in a pod's volumes in the order in which upstream looks at them.
const OF_PODS: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// As [`OF_PODS`], for persistent volumes.
const OF_VOLUMES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// The types that an owner may have.
pub(super) fn types(owner: Owner) -> &'static [&'static str] {
    if owner == Owner::Volume { OF_VOLUMES } else { OF_PODS }
}

/// Checks that there is exactly one source, and that one.
pub(super) fn source(at: &At<'_>, around: Around<'_>, errors: &mut Errors) {
    const TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
                            iscsi.initiatorName is specified.";
    let mut count = 0;
    for kind in types(around.owner) {
        let Some(found) = at.some(kind) else { continue };
        // Upstream forgets to look at others before it looks at this one.
        let forgotten = around.owner == Owner::Volume && *kind == "flexVolume";
        if count > 0 && !forgotten {
            let path = at.path.child(spelt(kind));
            found.under(path).forbidden("may not specify more than 1 volume type", errors);
        } else {
            count += 1;
            kinds::check(kind, &found.under(checked_at(&at.path, kind)), around, errors);
        }
        let long = *kind == "iscsi"
            && around.owner != Owner::Volume
            && found.has("initiatorName")
            && around.name.len() + 1 + found.str_of("targetPortal").len() > 64;
        if long {
            at.field("name").invalid_text(TOO_LONG, errors);
        }
    }
    if count == 0 {
        at.required("must specify a volume type", errors);
    }
}

/// How upstream spells a type that is one too many.
fn spelt(kind: &str) -> &str {
    match kind {
        "cephfs" => "cephFS",
        "downwardAPI" => "downwarAPI",
        kind => kind,
    }
}

/// The path that upstream gives to what is wrong in a source.
fn checked_at(volume: &FieldPath, kind: &str) -> FieldPath {
    volume.child(if kind == "gcePersistentDisk" { "persistentDisk" } else { kind })
}
