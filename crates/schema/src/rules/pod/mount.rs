//! Rules of a pod's list of volumes, and of what containers mount of them.

use std::collections::{HashMap, HashSet};

use meta::names;
use serde_json::Value;

use super::tolerated::{LISTS, Tolerated};
use crate::rules::at::{At, Errors, relative_path};
use crate::rules::volume::{self, Around, Owner};
use crate::view::View;

/// Volumes that are in order, by name.
pub(super) type Volumes<'a> = HashMap<&'a str, &'a Value>;

/// Checks `spec.volumes`; yields those that are in order.
pub(super) fn volumes<'a>(
    spec: &At<'a>,
    meta: Option<&Value>,
    tolerated: Tolerated,
    errors: &mut Errors,
) -> Volumes<'a> {
    let mut volumes = Volumes::new();
    let pod = meta.map_or("", |meta| meta.text("name"));
    let is_claimed = |volume: &Value| !pod.is_empty() && volume.has("ephemeral");
    let claims: HashSet<String> = spec
        .items("volumes")
        .iter()
        .filter(|volume| is_claimed(volume))
        .map(|volume| format!("{pod}-{}", volume.text("name")))
        .collect();
    for volume in spec.each("volumes") {
        let mut found = Errors::new();
        let name = volume.field("name");
        let owner = if tolerated.pod { Owner::Pod } else { Owner::Template };
        let around = Around {
            owner,
            name: name.str(),
            token_paths: tolerated.token_paths,
            has_nodes: false,
        };
        volume::source(&volume, around, &mut found);
        if is_claimed(volume.value) && !name.str().is_empty() {
            let claim = format!("{pod}-{}", name.str());
            for problem in names::is_dns1123_subdomain(&claim) {
                let text = format!("PVC name {}: {problem}", meta::quote(&claim));
                name.invalid(text, &mut found);
            }
        }
        name.required_name(names::is_dns1123_label, &mut found);
        if volumes.contains_key(name.str()) {
            name.duplicate(&mut found);
        }
        if found.is_empty() {
            volumes.insert(name.str(), volume.value);
        }
        errors.extend(found);
        let claim = volume.field("persistentVolumeClaim").field("claimName");
        if claims.contains(claim.str()) {
            let text = "must not reference a PVC that gets created for an ephemeral volume";
            claim.invalid(text, errors);
        }
    }
    volumes
}

/// Names and paths in one of a container's two lists.
struct Places<'a> {
    names: HashSet<&'a str>,
    paths: HashSet<&'a str>,
}

impl<'a> Places<'a> {
    fn of(container: &At<'a>, list: &str, path: &str) -> Self {
        // Of entries with one name, upstream knows the last.
        let items = container.value.items(list).iter();
        let last: HashMap<&str, &str> =
            items.map(|item| (item.text("name"), item.text(path))).collect();
        Self { names: last.keys().copied().collect(), paths: last.into_values().collect() }
    }
}

/// Checks a container's `volumeMounts`.
pub(super) fn mounts(container: &At<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let devices = Places::of(container, "volumeDevices", "devicePath");
    let list = container.path.child("volumeMounts");
    let mut points = HashSet::new();
    for mount in container.each("volumeMounts") {
        let (name, point) = (mount.field("name"), mount.field("mountPath"));
        name.needed(errors);
        if !volumes.contains_key(name.str()) {
            name.not_found(errors);
        }
        point.needed(errors);
        if !points.insert(point.str()) {
            point.invalid_text("must be unique", errors);
        }
        if devices.names.contains(name.str()) {
            name.invalid_text("must not already exist in volumeDevices", errors);
        }
        if devices.paths.contains(point.str()) {
            point.invalid_text("must not already exist as a path in volumeDevices", errors);
        }
        // Upstream forgets the index in these paths.
        let on_list = |field: &str| mount.field(field).under(list.child(field));
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
        propagation(&on_list("mountPropagation"), container, errors);
        recursive_read_only(&mount, &on_list("recursiveReadOnly"), errors);
    }
}

fn propagation(at: &At<'_>, container: &At<'_>, errors: &mut Errors) {
    at.known(&["Bidirectional", "HostToContainer", "None"], errors);
    if at.str() == "Bidirectional" && !container.value.at("securityContext").flag("privileged") {
        let text = "Bidirectional mount propagation is available only to privileged containers";
        at.forbidden(text, errors);
    }
}

fn recursive_read_only(mount: &At<'_>, at: &At<'_>, errors: &mut Errors) {
    if !matches!(at.str(), "Enabled" | "IfPossible") {
        return at.known(&["Disabled", "Enabled", "IfPossible"], errors);
    }
    if !mount.flag("readOnly") {
        at.forbidden("may only be specified when readOnly is true", errors);
    }
    if !matches!(mount.str_of("mountPropagation"), "" | "None") {
        let text = "may only be specified when mountPropagation is None or not specified";
        at.forbidden(text, errors);
    }
}

/// Checks a container's `volumeDevices`.
pub(super) fn devices(container: &At<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    if container.items("volumeDevices").is_empty() {
        return;
    }
    let mounts = Places::of(container, "volumeMounts", "mountPath");
    let (mut seen_names, mut seen_paths) = (HashSet::new(), HashSet::new());
    for device in container.each("volumeDevices") {
        let (name, path) = (device.field("name"), device.field("devicePath"));
        name.needed(errors);
        if !name.str().is_empty() && !seen_names.insert(name.str()) {
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
        path.needed(errors);
        if seen_paths.contains(path.str()) {
            path.invalid_text("must be unique", errors);
        }
        if path.str().split('/').any(|part| part == "..") {
            path.invalid_text("can not contain backsteps ('..')", errors);
        } else {
            seen_paths.insert(path.str());
        }
        if mounts.names.contains(name.str()) {
            name.invalid_text("must not already exist in volumeMounts", errors);
        }
        if mounts.paths.contains(path.str()) {
            path.invalid_text("must not already exist as a path in volumeMounts", errors);
        }
    }
}

/// Variables from files come from volumes that live as long as the pod.
pub(super) fn files_of_variables(spec: &At<'_>, errors: &mut Errors) {
    let mut sources: Option<HashMap<&str, &Value>> = None;
    for container in LISTS.iter().flat_map(|list| spec.each(list)) {
        for variable in container.each("env") {
            let from = variable.value.at("valueFrom");
            if !from.has("fileKeyRef") {
                continue;
            }
            let all = || spec.value.items("volumes").iter().map(|v| (v.text("name"), v)).collect();
            let sources = sources.get_or_insert_with(all);
            let name = variable.field("valueFrom").field("fileKeyRef").field("volumeName");
            match sources.get(name.str()) {
                None => name.not_found(errors),
                Some(volume) if volume.has("emptyDir") => {}
                Some(_) => {
                    name.invalid_text("referenced volume must be of type emptyDir", errors);
                }
            }
        }
    }
}
