//! Rules of volumes, and of what containers mount of them.

use std::collections::BTreeMap;

use meta::{FieldError, names};
use serde_json::Value;

use super::env::{FILE_FIELDS, field_selector, resource_selector};
use crate::rules::at::{At, Errors, file_mode, no_backsteps, relative_path, unreserved_path};
use crate::view::View;

/// Volumes that are in order, by name.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

/// Types of volumes in the order in which upstream looks at them.
const TYPES: &[&str] = &[
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

/// Fields that volumes of the simpler types must have.
const NEEDED: &[(&str, &[&str])] = &[
    ("gitRepo", &["repository"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("rbd", &["image"]),
    ("cinder", &["volumeID"]),
    ("quobyte", &["registry", "volume"]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("storageos", &["volumeName"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("image", &["reference"]),
];

/// Checks `spec.volumes`; yields those that are in order.
pub(super) fn validate<'a>(
    spec: &At<'a>,
    meta: Option<&Value>,
    errors: &mut Errors,
) -> Volumes<'a> {
    let mut volumes = Volumes::new();
    let pod = meta.map_or("", |meta| meta.text("name"));
    for volume in spec.each("volumes") {
        let mut found = Errors::new();
        source(&volume, pod, &mut found);
        let name = volume.field("name");
        name.required_name(names::is_dns1123_label, &mut found);
        if volumes.contains_key(name.str()) {
            name.duplicate(&mut found);
        }
        if found.is_empty() {
            volumes.insert(name.str(), volume.value);
        }
        errors.append(&mut found);
    }
    volumes
}

fn source(volume: &At<'_>, pod: &str, errors: &mut Errors) {
    let mut count = 0;
    for kind in TYPES {
        let Some(found) = volume.some(kind) else { continue };
        if count > 0 {
            found.forbidden("may not specify more than 1 volume type", errors);
            continue;
        }
        count += 1;
        of_type(kind, &found, errors);
        if *kind == "ephemeral" && !pod.is_empty() {
            let claim = format!("{pod}-{}", volume.str_of("name"));
            for problem in names::is_dns1123_subdomain(&claim) {
                let text = format!("PVC name {}: {problem}", meta::quote(&claim));
                volume.field("name").invalid(text, errors);
            }
        }
    }
    if count == 0 {
        volume.required("must specify a volume type", errors);
    }
}

fn of_type(kind: &str, at: &At<'_>, errors: &mut Errors) {
    if let Some((_, fields)) = NEEDED.iter().find(|(name, _)| *name == kind) {
        for field in *fields {
            if at.str_of(field).is_empty() {
                at.field(field).required("", errors);
            }
        }
    }
    match kind {
        "emptyDir" => {
            let limit = at.str_of("sizeLimit").parse::<meta::Quantity>();
            if limit.is_ok_and(|limit| limit.signum() < 0) {
                at.field("sizeLimit")
                    .forbidden("SizeLimit field must be a valid resource quantity", errors);
            }
        }
        "hostPath" => host_path(at, errors),
        "secret" => keyed(at, "secretName", errors),
        "configMap" => keyed(at, "name", errors),
        "downwardAPI" => {
            default_mode(at, errors);
            for file in at.each("items") {
                downward_file(&At { value: file.value, path: at.path.clone() }, errors);
            }
        }
        "projected" => projected(at, errors),
        "nfs" if !at.str_of("path").is_empty() && !at.str_of("path").starts_with('/') => {
            at.field("path").invalid("must be an absolute path", errors);
        }
        "csi" => {
            at.field("driver")
                .required_name(|name| names::is_dns1123_subdomain(&name.to_lowercase()), errors);
            if let Some(secret) = at.some("nodePublishSecretRef") {
                secret.field("name").required_name(names::is_dns1123_subdomain, errors);
            }
        }
        "ephemeral" if !at.has("volumeClaimTemplate") => {
            at.field("volumeClaimTemplate").required("", errors)
        }
        "image" => {
            let policy = at.field("pullPolicy");
            policy.one_of(&["Always", "IfNotPresent", "Never"], errors);
        }
        _ => {}
    }
}

fn host_path(at: &At<'_>, errors: &mut Errors) {
    const KINDS: &[&str] = &[
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    let path = at.field("path");
    if path.str().is_empty() {
        return path.required("", errors);
    }
    no_backsteps(&path, errors);
    if let Some(kind) = at.some("type").filter(|kind| !KINDS.contains(&kind.str())) {
        kind.unsupported(KINDS, errors);
    }
}

fn default_mode(at: &At<'_>, errors: &mut Errors) {
    if let Some(mode) = at.some("defaultMode") {
        file_mode(&mode, errors);
    }
}

/// A volume from a ConfigMap or Secret, which `name` names.
fn keyed(at: &At<'_>, name: &str, errors: &mut Errors) {
    if at.str_of(name).is_empty() {
        at.field(name).required("", errors);
    }
    default_mode(at, errors);
    for item in at.each("items") {
        key_to_path(&item, errors);
    }
}

fn key_to_path(item: &At<'_>, errors: &mut Errors) {
    for field in ["key", "path"] {
        if item.str_of(field).is_empty() {
            item.field(field).required("", errors);
        }
    }
    unreserved_path(&item.field("path"), errors);
    if let Some(mode) = item.some("mode") {
        file_mode(&mode, errors);
    }
}

fn downward_file(file: &At<'_>, errors: &mut Errors) {
    if file.str_of("path").is_empty() {
        file.field("path").required("", errors);
    }
    unreserved_path(&file.field("path"), errors);
    match (file.some("fieldRef"), file.some("resourceFieldRef")) {
        (Some(field), other) => {
            field_selector(&field, FILE_FIELDS, errors);
            if other.is_some() {
                let text = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(&file.path, "resource", text));
            }
        }
        (None, Some(resource)) => resource_selector(&resource, true, errors),
        (None, None) => file.required("one of fieldRef and resourceFieldRef is required", errors),
    }
    if let Some(mode) = file.some("mode") {
        file_mode(&mode, errors);
    }
}

fn projected(at: &At<'_>, errors: &mut Errors) {
    default_mode(at, errors);
    let mut paths: Vec<String> = Vec::new();
    for source in at.each("sources") {
        let mut count = 0;
        let mut claim = |path: &str, shown: &str, errors: &mut Errors| {
            if !path.is_empty() && paths.iter().any(|taken| taken == path) {
                errors.push(FieldError::invalid(&at.path, shown, "conflicting duplicate paths"));
            } else if !path.is_empty() {
                paths.push(path.to_owned());
            }
        };
        for kind in ["secret", "configMap"] {
            let Some(found) = source.some(kind) else { continue };
            count += 1;
            if found.str_of("name").is_empty() {
                found.field("name").required("", errors);
            }
            for item in found.each("items") {
                key_to_path(&item, errors);
                claim(item.str_of("path"), found.str_of("name"), errors);
            }
        }
        if let Some(found) = source.some("downwardAPI") {
            count += 1;
            for file in found.each("items") {
                downward_file(&At { value: file.value, path: found.path.clone() }, errors);
                claim(file.str_of("path"), file.str_of("path"), errors);
            }
        }
        if let Some(token) = source.some("serviceAccountToken") {
            count += 1;
            service_account_token(at, &token, errors);
        }
        if let Some(bundle) = source.some("clusterTrustBundle") {
            count += 1;
            trust_bundle(&bundle, errors);
            claim(bundle.str_of("path"), bundle.str_of("path"), errors);
        }
        if source.has("podCertificate") {
            count += 1;
        }
        if count > 1 {
            source.forbidden("may not specify more than 1 volume type per source", errors);
        }
    }
}

fn service_account_token(at: &At<'_>, token: &At<'_>, errors: &mut Errors) {
    const SHORTEST: i64 = 600;
    const LONGEST: i64 = 1 << 32;
    let seconds = token.field("expirationSeconds");
    if seconds.number() < SHORTEST {
        seconds.invalid("may not specify a duration less than 10 minutes", errors);
    }
    if seconds.number() > LONGEST {
        seconds.invalid("may not specify a duration larger than 2^32 seconds", errors);
    }
    let path = At { value: token.value.at("path"), path: at.path.child("path") };
    if path.str().is_empty() { path.required("", errors) } else { unreserved_path(&path, errors) }
}

fn trust_bundle(bundle: &At<'_>, errors: &mut Errors) {
    match (bundle.has("name"), bundle.has("signerName")) {
        (true, true) => bundle.invalid("only one of name and signerName may be used", errors),
        (false, false) => bundle.required("either name or signerName must be specified", errors),
        (true, false) if bundle.str_of("name").is_empty() => {
            bundle.field("name").required("must be a valid object name", errors);
        }
        (false, true) if bundle.str_of("signerName").is_empty() => {
            bundle.field("signerName").required("must be a valid signer name", errors);
        }
        _ => {}
    }
    if bundle.str_of("path").is_empty() {
        bundle.field("path").required("", errors);
    }
    unreserved_path(&bundle.field("path"), errors);
}

/// Checks a container's `volumeMounts`.
pub(super) fn mounts(container: &At<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let devices = container.items("volumeDevices");
    let list = container.path.child("volumeMounts");
    let mut points = Vec::new();
    for mount in container.each("volumeMounts") {
        let (name, point) = (mount.field("name"), mount.field("mountPath"));
        if name.str().is_empty() {
            name.required("", errors);
        }
        if !volumes.contains_key(name.str()) {
            name.not_found(errors);
        }
        if point.str().is_empty() {
            point.required("", errors);
        }
        if points.contains(&point.str()) {
            point.invalid_text("must be unique", errors);
        }
        points.push(point.str());
        if devices.iter().any(|device| device.text("name") == name.str()) {
            name.invalid_text("must not already exist in volumeDevices", errors);
        }
        if devices.iter().any(|device| device.text("devicePath") == point.str()) {
            point.invalid_text("must not already exist as a path in volumeDevices", errors);
        }
        // Upstream forgets the index in these paths.
        let on_list = |field: &str| At { value: mount.value.at(field), path: list.child(field) };
        if !mount.str_of("subPath").is_empty() {
            relative_path(&on_list("subPath"), errors);
        }
        if !mount.str_of("subPathExpr").is_empty() {
            if !mount.str_of("subPath").is_empty() {
                let text = "subPathExpr and subPath are mutually exclusive";
                mount.field("subPathExpr").invalid(text, errors);
            }
            relative_path(&on_list("subPathExpr"), errors);
        }
        propagation(&mount, &on_list("mountPropagation"), container, errors);
        recursive_read_only(&mount, &on_list("recursiveReadOnly"), errors);
    }
}

fn propagation(mount: &At<'_>, at: &At<'_>, container: &At<'_>, errors: &mut Errors) {
    if !mount.has("mountPropagation") {
        return;
    }
    const KINDS: &[&str] = &["Bidirectional", "HostToContainer", "None"];
    if !KINDS.contains(&at.str()) {
        at.unsupported(KINDS, errors);
    }
    if at.str() == "Bidirectional" && !container.value.at("securityContext").flag("privileged") {
        let text = "Bidirectional mount propagation is available only to privileged containers";
        at.forbidden(text, errors);
    }
}

fn recursive_read_only(mount: &At<'_>, at: &At<'_>, errors: &mut Errors) {
    match at.str() {
        "" | "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.flag("readOnly") {
                at.forbidden("may only be specified when readOnly is true", errors);
            }
            if !matches!(mount.str_of("mountPropagation"), "" | "None") {
                let text = "may only be specified when mountPropagation is None or not specified";
                at.forbidden(text, errors);
            }
        }
        _ => at.unsupported(&["Disabled", "Enabled", "IfPossible"], errors),
    }
}

/// Checks a container's `volumeDevices`.
pub(super) fn devices(container: &At<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let mounts = container.items("volumeMounts");
    let (mut seen_names, mut seen_paths) = (Vec::new(), Vec::new());
    for device in container.each("volumeDevices") {
        let (name, path) = (device.field("name"), device.field("devicePath"));
        if name.str().is_empty() {
            name.required("", errors);
        }
        if seen_names.contains(&name.str()) {
            name.invalid_text("must be unique", errors);
        }
        match volumes.get(name.str()) {
            None => name.not_found(errors),
            Some(volume) if volume.has("persistentVolumeClaim") || volume.has("ephemeral") => {}
            Some(_) => {
                let text = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                name.invalid_text(text, errors);
            }
        }
        if path.str().is_empty() {
            path.required("", errors);
        }
        if seen_paths.contains(&path.str()) {
            path.invalid_text("must be unique", errors);
        }
        if path.str().split('/').any(|part| part == "..") {
            path.invalid_text("can not contain backsteps ('..')", errors);
        } else {
            seen_paths.push(path.str());
        }
        if mounts.iter().any(|mount| mount.text("name") == name.str()) {
            name.invalid_text("must not already exist in volumeMounts", errors);
        }
        if mounts.iter().any(|mount| mount.text("mountPath") == path.str()) {
            path.invalid_text("must not already exist as a path in volumeMounts", errors);
        }
        seen_names.push(name.str());
    }
}
