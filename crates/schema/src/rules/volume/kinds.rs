//! What each type of volume must say.

use std::path::{Component, Path};

use meta::{FieldError, names};

use super::{Around, Owner, files};
use crate::rules::at::{At, Errors, no_backsteps, relative_path};
use crate::rules::claim;
use crate::view::View;

/// Texts that a type needs, in order; checks that are more than that are below.
const NEEDED: &[(&str, &[&str])] = &[
    ("gitRepo", &["repository"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("nfs", &["server", "path"]),
    ("glusterfs", &["endpoints", "path"]),
    ("cinder", &["volumeID"]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("persistentVolumeClaim", &["claimName"]),
];

pub(super) fn check(kind: &str, at: &At<'_>, around: Around<'_>, errors: &mut Errors) {
    let needed = NEEDED.iter().find(|(name, _)| *name == kind).map_or(&[][..], |row| row.1);
    for field in needed {
        at.field(field).needed(errors);
    }
    let persistent = around.owner == Owner::Volume;
    match kind {
        "emptyDir" => empty_dir(at, errors),
        "hostPath" => host_path(at, errors),
        "gitRepo" => relative_path(&at.field("directory"), errors),
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            let partition = at.field("partition");
            if !(0..=255).contains(&partition.number()) {
                partition.invalid(names::range_error(1, 255), errors);
            }
        }
        "secret" => files::keyed(at, "secretName", errors),
        "configMap" => files::keyed(at, "name", errors),
        "downwardAPI" => files::downward(at, errors),
        "projected" => files::projected(at, around, errors),
        "nfs" if !at.str_of("path").starts_with('/') => {
            at.field("path").invalid_text("must be an absolute path", errors);
        }
        "iscsi" => iscsi(at, persistent, around.name, errors),
        "fc" => fibre_channel(at, errors),
        "glusterfs" if persistent => endpoints_namespace(at, errors),
        "flocker" => flocker(at, errors),
        "rbd" => {
            monitors(at, errors);
            at.field("image").needed(errors);
        }
        "cephfs" => monitors(at, errors),
        "cinder" => secret_reference(at, persistent, errors),
        "quobyte" => quobyte(at, errors),
        "flexVolume" => options(at, errors),
        "azureFile" if persistent && at.has("secretNamespace") => {
            at.field("secretNamespace").needed(errors);
        }
        "azureDisk" => azure_disk(at, errors),
        "storageos" => {
            at.field("volumeName").required_name(names::is_dns1123_label, errors);
            at.field("volumeNamespace").optional(names::is_dns1123_label, errors);
            secret_reference(at, persistent, errors);
        }
        "csi" => csi(at, persistent, errors),
        "local" => local(at, around, errors),
        "ephemeral" => match at.some("volumeClaimTemplate") {
            Some(template) => claim::template(&template, errors),
            None => at.field("volumeClaimTemplate").required("", errors),
        },
        "image" => {
            if around.owner == Owner::Pod {
                at.field("reference").needed(errors);
            }
            at.field("pullPolicy").one_of(&["Always", "IfNotPresent", "Never"], errors);
        }
        _ => {}
    }
}

fn empty_dir(at: &At<'_>, errors: &mut Errors) {
    let limit = at.str_of("sizeLimit").parse::<meta::Quantity>();
    if limit.is_ok_and(|limit| limit.signum() < 0) {
        let text = "SizeLimit field must be a valid resource quantity";
        at.field("sizeLimit").forbidden(text, errors);
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
    at.field("type").known(KINDS, errors);
}

fn local(at: &At<'_>, around: Around<'_>, errors: &mut Errors) {
    let path = at.field("path");
    path.needed(errors);
    no_backsteps(&path, errors);
    if !around.has_nodes {
        // The affinity stands beside the source.
        let volume = at.path.as_str().strip_suffix(".local").unwrap_or_default();
        let path = meta::FieldPath::new(volume).child("nodeAffinity");
        errors.push(FieldError::required(path, "Local volume requires node affinity"));
    }
}

fn monitors(at: &At<'_>, errors: &mut Errors) {
    if at.items("monitors").is_empty() {
        at.field("monitors").required("", errors);
    }
}

fn secret_reference(at: &At<'_>, namespaced: bool, errors: &mut Errors) {
    if let Some(secret) = at.some("secretRef") {
        secret.field("name").needed(errors);
        if namespaced {
            secret.field("namespace").needed(errors);
        }
    }
}

fn iscsi(at: &At<'_>, persistent: bool, volume: &str, errors: &mut Errors) {
    at.field("targetPortal").needed(errors);
    if persistent
        && at.has("initiatorName")
        && volume.len() + 1 + at.str_of("targetPortal").len() > 64
    {
        let text = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
                    iscsi.initiatorName is specified.";
        let path = at.path.child("targetportal");
        errors.push(FieldError::invalid(path, at.str_of("targetPortal"), text));
    }
    let unknown = if persistent {
        "must be valid format"
    } else {
        "must be valid format starting with iqn, eui, or naa"
    };
    let name = at.field("iqn");
    if name.str().is_empty() {
        name.required("", errors);
    } else {
        initiator(&name, unknown, errors);
    }
    at.field("lun").in_range(0, 255, errors);
    if (at.flag("chapAuthDiscovery") || at.flag("chapAuthSession")) && !at.has("secretRef") {
        at.field("secretRef").required("", errors);
    }
    if let (true, Some(secret)) = (persistent, at.some("secretRef")) {
        secret.field("name").needed(errors);
    }
    if let Some(name) = at.some("initiatorName") {
        initiator(&name.under(at.path.child("initiatorname")), unknown, errors);
    }
}

fn initiator(at: &At<'_>, unknown: &str, errors: &mut Errors) {
    let text = at.str();
    let alphanumeric = |rest: &str, count: usize| {
        let mut chars = rest.chars();
        chars.next().is_some()
            && chars.as_str().len() == count
            && chars.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let good = match text.get(..3) {
        Some("iqn") => is_iqn(text),
        Some("eui") => alphanumeric(&text[3..], 16),
        Some("naa") => alphanumeric(&text[3..], 32),
        _ => return at.invalid_text(unknown, errors),
    };
    if !good {
        at.invalid_text("must be valid format", errors);
    }
}

/// `iqn.YYYY-MM.domain:name`.
fn is_iqn(text: &str) -> bool {
    let digits = |text: Option<&str>, count: usize| {
        text.is_some_and(|text| {
            text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    let of = |rest: &str| {
        let (domain, name) = rest.get(8..)?.split_once(':')?;
        let dated = digits(rest.get(..4), 4)
            && rest.get(4..5) == Some("-")
            && digits(rest.get(5..7), 2)
            && rest.get(7..8) == Some(".");
        let domain = !domain.is_empty()
            && domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
        let named =
            !name.is_empty() && !name.contains(|c: char| ",;*&$|".contains(c) || c.is_whitespace());
        Some(dated && domain && named)
    };
    text.match_indices("iqn.").any(|(at, _)| of(&text[at + 4..]) == Some(true))
}

fn fibre_channel(at: &At<'_>, errors: &mut Errors) {
    let (targets, ids) = (at.field("targetWWNs"), at.items("wwids"));
    let any = !at.items("targetWWNs").is_empty();
    if !any && ids.is_empty() {
        targets.required("must specify either targetWWNs or wwids, but not both", errors);
    }
    if any && !ids.is_empty() {
        targets.invalid("targetWWNs and wwids can not be specified simultaneously", errors);
    }
    if any && !at.has("lun") {
        at.field("lun").required("lun is required if targetWWNs is specified", errors);
    } else if any {
        at.field("lun").in_range(0, 255, errors);
    }
}

fn endpoints_namespace(at: &At<'_>, errors: &mut Errors) {
    let Some(namespace) = at.some("endpointsNamespace") else { return };
    if namespace.str().is_empty() {
        let text = "if the endpointnamespace is set, it must be a valid namespace name";
        namespace.invalid(text, errors);
    } else {
        namespace.check(names::is_dns1123_label, errors);
    }
}

fn flocker(at: &At<'_>, errors: &mut Errors) {
    let (name, id) = (at.field("datasetName"), at.str_of("datasetUUID"));
    if name.str().is_empty() && id.is_empty() {
        at.required("one of datasetName and datasetUUID is required", errors);
    }
    if !name.str().is_empty() && !id.is_empty() {
        let text = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(FieldError::invalid(&at.path, "resource", text));
    }
    if name.str().contains('/') {
        name.invalid("must not contain '/'", errors);
    }
}

fn quobyte(at: &At<'_>, errors: &mut Errors) {
    let registry = at.field("registry");
    let text = "must be a host:port pair or multiple pairs separated by commas";
    if registry.str().is_empty() {
        registry.required(text, errors);
    } else if at.str_of("tenant").len() >= 65 {
        let text = "must be a UUID and may not exceed a length of 64 characters";
        at.field("tenant").required(text, errors);
    } else {
        for _ in registry.str().split(',').filter(|pair| !is_host_and_port(pair)) {
            registry.invalid(text, errors);
        }
    }
    at.field("volume").needed(errors);
}

fn is_host_and_port(pair: &str) -> bool {
    match pair.strip_prefix('[') {
        Some(rest) => rest.split_once(']').is_some_and(|(_, port)| port.starts_with(':')),
        None => pair.bytes().filter(|byte| *byte == b':').count() == 1,
    }
}

/// Options whose keys belong to Kubernetes are not the user's.
fn options(at: &At<'_>, errors: &mut Errors) {
    for key in at.entries("options").keys() {
        let domain = key.split_once('/').map_or(key.as_str(), |(domain, _)| domain);
        let domain = format!(".{}", domain.to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let text = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(FieldError::invalid(at.path.child("options").key(key), key.as_str(), text));
        }
    }
}

fn azure_disk(at: &At<'_>, errors: &mut Errors) {
    const MANAGED: &str = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str =
        "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    at.field("cachingMode").known(&["None", "ReadOnly", "ReadWrite"], errors);
    at.field("kind").known(&["Dedicated", "Managed", "Shared"], errors);
    let uri = at.field("diskURI");
    match at.some("kind").map(|kind| kind.str()) {
        Some("Managed") if !uri.str().starts_with("/subscriptions/") => {
            uri.unsupported(&[MANAGED], errors);
        }
        Some(kind) if kind != "Managed" && !uri.str().starts_with("https://") => {
            uri.unsupported(&[BLOB], errors);
        }
        _ => {}
    }
}

fn csi(at: &At<'_>, persistent: bool, errors: &mut Errors) {
    const SECRETS: &[&str] = &[
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ];
    at.field("driver").driver(errors);
    if !persistent {
        let Some(secret) = at.some("nodePublishSecretRef") else { return };
        let name = secret.field("name");
        name.needed(errors);
        name.under(at.path.child("name")).optional(names::is_dns1123_subdomain, errors);
        return;
    }
    at.field("volumeHandle").needed(errors);
    for secret in SECRETS.iter().filter_map(|field| at.some(field)) {
        secret.field("name").required_name(names::is_dns1123_subdomain, errors);
        secret.field("namespace").required_name(names::is_dns1123_label, errors);
    }
}

/// Whether a path leads to the root of the file system.
pub(in crate::rules) fn is_root(path: &str) -> bool {
    let mut depth = 0_usize;
    for component in Path::new(path).components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    path.starts_with('/') && depth == 0
}
