//! Which fields a write through the object or a subresource cannot touch.

use schema::apply::{Reset, Set};

use crate::row::Row;

/// What nobody comes to manage by writing this resource through this subresource.
pub(super) fn of(row: &Row, subresource: Option<&str>) -> Reset {
    let (group, plural) = (row.resource.group.as_str(), row.resource.resource.as_str());
    let these = |fields: &[&[&'static str]]| Reset::These(Set::of_fields(fields));
    match (subresource, plural) {
        (None, "certificatesigningrequests") => these(&[&["spec"], &["status"]]),
        (None, "servicecidrs") => these(&[]),
        (None, _) if row.has_status() => these(&[&["status"]]),
        (Some("status"), "deployments") => these(&[&["spec"], &["metadata", "labels"]]),
        (Some("status"), "pods") => these(&[
            &["spec"],
            &["metadata", "deletionTimestamp"],
            &["metadata", "ownerReferences"],
        ]),
        (Some("status"), "certificatesigningrequests") => {
            these(&[&["spec"], &["status", "conditions"]])
        }
        (Some("status"), _) if whole_metadata(group, plural) => these(&[&["spec"], &["metadata"]]),
        (Some("status"), _) => these(&[&["spec"]]),
        (Some("approval"), _) => these(&[&["spec"], &["status", "certificate"]]),
        (Some("finalize"), _) => these(&[&["status"]]),
        (Some("ephemeralcontainers"), _) => Reset::AllBut(&[&["spec", "ephemeralContainers"]]),
        (Some("resize"), _) => Reset::AllBut(&[
            &["spec", "containers", "*", "resources"],
            &["spec", "containers", "*", "resizePolicy"],
            &["spec", "initContainers", "*", "resources"],
            &["spec", "initContainers", "*", "resizePolicy"],
        ]),
        _ => these(&[]),
    }
}

/// The resources whose status is written without their metadata.
fn whole_metadata(group: &str, plural: &str) -> bool {
    let groups = [
        "admissionregistration.k8s.io",
        "apiregistration.k8s.io",
        "apiextensions.k8s.io",
        "flowcontrol.apiserver.k8s.io",
        "resource.k8s.io",
        "storage.k8s.io",
    ];
    groups.contains(&group) || plural == "servicecidrs"
}
