//! The files of configMap, secret, downwardAPI and projected volumes. Knows nothing of disks.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1 as api;

use super::Ingredients;
use crate::spec::{
    PodId,
    env::Lookup,
    fields::{self, Facts},
};

/// Mode of files unless the volume says otherwise.
const MODE: i32 = 0o644;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    /// Owner, if it is not root: tokens belong to the user that reads them.
    pub(crate) owner: Option<u32>,
}

type Files = BTreeMap<String, File>;

/// What one source contributes.
struct Source<'a> {
    kind: &'static str,
    name: &'a str,
    data: Option<BTreeMap<String, Vec<u8>>>,
    items: Option<&'a Vec<api::KeyToPath>>,
    optional: bool,
    mode: i32,
}

/// The files of a volume.
///
/// # Errors
/// The sentence that goes into the `FailedMount` event.
pub(super) async fn render(
    pod: &Arc<api::Pod>,
    volume: &api::Volume,
    ingredients: &Ingredients<'_>,
) -> Result<Files, String> {
    let sources = ingredients.sources;
    let namespace = PodId::of(pod).namespace;
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let one = Source {
            kind: "configmap",
            name: &source.name,
            data: sources.config_map_files(&source.name),
            items: source.items.as_ref(),
            optional: source.optional.unwrap_or(false),
            mode: source.default_mode.unwrap_or(MODE),
        };
        add(&mut files, one, &namespace)?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let one = Source {
            kind: "secret",
            name,
            data: sources.secret(name),
            items: source.items.as_ref(),
            optional: source.optional.unwrap_or(false),
            mode: source.default_mode.unwrap_or(MODE),
        };
        add(&mut files, one, &namespace)?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(MODE);
        downward(&mut files, pod, source.items.as_ref(), mode, &ingredients.facts)?;
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode.unwrap_or(MODE);
        for source in projected.sources.iter().flatten() {
            project(&mut files, pod, source, mode, ingredients).await?;
        }
    }
    Ok(files)
}

async fn project(
    files: &mut Files,
    pod: &Arc<api::Pod>,
    source: &api::VolumeProjection,
    mode: i32,
    ingredients: &Ingredients<'_>,
) -> Result<(), String> {
    let sources = ingredients.sources;
    let namespace = PodId::of(pod).namespace;
    if let Some(map) = &source.config_map {
        let one = Source {
            kind: "configmap",
            name: &map.name,
            data: sources.config_map_files(&map.name),
            items: map.items.as_ref(),
            optional: map.optional.unwrap_or(false),
            mode,
        };
        add(files, one, &namespace)?;
    }
    if let Some(secret) = &source.secret {
        let one = Source {
            kind: "secret",
            name: &secret.name,
            data: sources.secret(&secret.name),
            items: secret.items.as_ref(),
            optional: secret.optional.unwrap_or(false),
            mode,
        };
        add(files, one, &namespace)?;
    }
    if let Some(downward_api) = &source.downward_api {
        downward(files, pod, downward_api.items.as_ref(), mode, &ingredients.facts)?;
    }
    if let Some(token) = &source.service_account_token {
        let bytes = ingredients.tokens.get(pod, token).await?;
        let (mode, owner) = token_access(pod, mode);
        files.insert(token.path.clone(), File { bytes: bytes.into_bytes(), mode, owner });
    }
    Ok(())
}

/// A token is readable for the pod's group if there is one, or owned by the one user all containers run as.
fn token_access(pod: &api::Pod, mode: i32) -> (u32, Option<u32>) {
    let spec = pod.spec.clone().unwrap_or_default();
    let context = spec.security_context.unwrap_or_default();
    if context.fs_group.is_some() {
        return (0o600, None);
    }
    let users: Vec<Option<i64>> = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(context.run_as_user))
        .collect();
    match users.first() {
        Some(Some(user)) if users.iter().all(|u| *u == Some(*user)) => {
            (0o600, u32::try_from(*user).ok())
        }
        _ => (bits(mode), None),
    }
}

fn add(files: &mut Files, source: Source<'_>, namespace: &str) -> Result<(), String> {
    let Source { kind, name, data, items, optional, mode } = source;
    let Some(data) = data else {
        return if optional { Ok(()) } else { Err(format!("{kind} {name:?} not found")) };
    };
    let Some(items) = items else {
        for (key, bytes) in data {
            files.insert(key, File { bytes, mode: bits(mode), owner: None });
        }
        return Ok(());
    };
    for item in items {
        let Some(bytes) = data.get(&item.key) else {
            if optional {
                continue;
            }
            return Err(format!(
                "references non-existent {} key: {} ({namespace}/{name})",
                word(kind),
                item.key
            ));
        };
        let mode = bits(item.mode.unwrap_or(mode));
        files.insert(item.path.clone(), File { bytes: bytes.clone(), mode, owner: None });
    }
    Ok(())
}

fn word(kind: &str) -> &str {
    if kind == "configmap" { "config" } else { "secret" }
}

fn downward(
    files: &mut Files,
    pod: &api::Pod,
    items: Option<&Vec<api::DownwardAPIVolumeFile>>,
    mode: i32,
    facts: &Facts,
) -> Result<(), String> {
    for item in items.into_iter().flatten() {
        let value = if let Some(field) = &item.field_ref {
            fields::pod_field(pod, &field.field_path, facts)?
        } else if let Some(resource) = &item.resource_field_ref {
            fields::resource_field(pod, resource, None, facts)?
        } else {
            String::new()
        };
        let mode = bits(item.mode.unwrap_or(mode));
        files.insert(item.path.clone(), File { bytes: value.into_bytes(), mode, owner: None });
    }
    Ok(())
}

fn bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o7777
}
