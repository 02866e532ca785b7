//! Warnings about volumes, claims and classes of storage.

use super::{OLD_CLASS, annotation, node_term, old_label};
use crate::rules::at::At;
use crate::view::View;

/// Amounts of bytes that are no whole number.
pub(super) fn fractions(amounts: &At<'_>, names: &[&str], out: &mut Vec<String>) {
    for name in names {
        let text = amounts.value.text(name);
        let amount = text.parse::<meta::Quantity>();
        if amount.is_ok_and(|amount| amount.milli_value() % 1000 != 0) {
            let path = amounts.path.key(name);
            out.push(format!(
                "{path}: fractional byte value {text:?} is invalid, must be an integer"
            ));
        }
    }
}

pub(super) fn claim(spec: &At<'_>, out: &mut Vec<String>) {
    let resources = spec.field("resources");
    for part in ["requests", "limits"] {
        fractions(&resources.field(part), &["storage"], out);
    }
}

/// Volumes whose drivers are gone, and since when.
pub(super) const OLD_VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Says which old driver a volume uses; upstream spells one of them otherwise.
pub(super) fn old_volumes(volume: &At<'_>, drivers: &[&str], out: &mut Vec<String>) {
    for (driver, text) in OLD_VOLUMES.iter().filter(|(driver, _)| drivers.contains(driver)) {
        if volume.value.has(driver) {
            let shown = if *driver == "storageos" { "storageOS" } else { driver };
            out.push(format!("{}: {text}", volume.path.child(shown)));
        }
    }
}

pub(super) fn volume(root: &At<'_>, out: &mut Vec<String>) {
    annotation(
        root,
        OLD_CLASS,
        "deprecated since v1.8; use \"storageClassName\" attribute instead",
        out,
    );
    let options = "volume.beta.kubernetes.io/mount-options";
    annotation(
        root,
        options,
        "deprecated since v1.31; use \"mountOptions\" attribute instead",
        out,
    );
    let spec = root.field("spec");
    if spec.value.text("persistentVolumeReclaimPolicy") == "Recycle" {
        out.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".to_owned());
    }
    let required = spec.field("nodeAffinity").field("required");
    required.each("nodeSelectorTerms").for_each(|term| node_term(&term, false, out));
    for driver in ["cephfs", "photonPersistentDisk", "scaleIO", "storageos", "glusterfs", "rbd"] {
        old_volumes(&spec, &[driver], out);
    }
}

pub(super) fn topologies(root: &At<'_>, out: &mut Vec<String>) {
    for expression in
        root.each("allowedTopologies").flat_map(|one| one.each("matchLabelExpressions"))
    {
        let key = expression.field("key");
        out.extend(old_label(key.str()).map(|text| format!("{}: {text}", key.path)));
    }
}
