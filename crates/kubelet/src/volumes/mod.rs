//! A pod's volumes on disk: making them, keeping their contents current, and removing them.
//!
//! Knows nothing of containers; where a volume lies is all that others learn.

mod atomic;
mod keeper;
mod local;
mod ownership;
mod payload;
mod subpath;
mod token;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1 as api;

pub(crate) use keeper::keep;
pub(crate) use subpath::SubPaths;
pub(crate) use token::Tokens;

use crate::{
    KubeletOptions,
    sources::Sources,
    spec::{PodId, fields::Facts},
};

/// Why a volume could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume {name:?} : {reason}")]
    SetUp { name: String, reason: String },
    #[error(
        "Unable to attach or mount volumes: unmounted volumes=[{0}]: volume type is not supported by this node"
    )]
    Unsupported(String),
}

/// What volumes are made from.
pub(crate) struct Ingredients<'a> {
    pub(crate) options: &'a KubeletOptions,
    pub(crate) sources: &'a Sources,
    pub(crate) tokens: &'a Tokens,
    pub(crate) facts: Facts,
}

/// Where a volume lies on the host.
pub(crate) fn path_of(
    options: &KubeletOptions,
    uid: &str,
    volume: &api::Volume,
) -> Option<PathBuf> {
    if let Some(host) = &volume.host_path {
        return Some(PathBuf::from(&host.path));
    }
    let plugin = plugin(volume)?;
    Some(
        options
            .pod_dir(uid)
            .join("volumes")
            .join(format!("kubernetes.io~{plugin}"))
            .join(&volume.name),
    )
}

/// The name of the volume's type in paths, if it has files of its own here.
fn plugin(volume: &api::Volume) -> Option<&'static str> {
    if volume.config_map.is_some() {
        Some("configmap")
    } else if volume.secret.is_some() {
        Some("secret")
    } else if volume.projected.is_some() {
        Some("projected")
    } else if volume.downward_api.is_some() {
        Some("downward-api")
    } else if volume.empty_dir.is_some() {
        Some("empty-dir")
    } else {
        None
    }
}

/// Makes every volume of the pod, or brings it up to date.
pub(crate) async fn set_up(
    pod: &Arc<api::Pod>,
    ingredients: &Ingredients<'_>,
) -> Result<(), VolumeError> {
    let uid = PodId::of(pod).uid;
    let spec = pod.spec.clone().unwrap_or_default();
    let fs_group = spec.security_context.as_ref().and_then(|c| c.fs_group);
    for volume in spec.volumes.iter().flatten() {
        let fail = |reason: String| VolumeError::SetUp { name: volume.name.clone(), reason };
        if let Some(host) = &volume.host_path {
            local::host_path(host).map_err(fail)?;
            continue;
        }
        let Some(dir) = path_of(ingredients.options, &uid, volume) else {
            return Err(VolumeError::Unsupported(volume.name.clone()));
        };
        if let Some(empty) = &volume.empty_dir {
            local::empty_dir(&dir, empty, fs_group).map_err(fail)?;
            continue;
        }
        let files = payload::render(pod, volume, ingredients).await.map_err(fail)?;
        // Secrets and tokens never reach a disk.
        let in_memory = volume.secret.is_some() || volume.projected.is_some();
        write(dir, files, fs_group, in_memory).await.map_err(fail)?;
    }
    Ok(())
}

/// Whether the pod has volumes whose contents may change.
pub(crate) fn changes(pod: &api::Pod) -> bool {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).any(|v| {
        v.config_map.is_some()
            || v.secret.is_some()
            || v.projected.is_some()
            || v.downward_api.is_some()
    })
}

async fn write(
    dir: PathBuf,
    files: BTreeMap<String, payload::File>,
    fs_group: Option<i64>,
    in_memory: bool,
) -> Result<(), String> {
    let written = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&dir)?;
        if in_memory {
            local::put_in_memory(&dir)?;
        }
        atomic::write(&dir, &files, fs_group)
    });
    match written.await {
        Ok(result) => result.map(|_| ()).map_err(|error| error.to_string()),
        Err(_) => Err("writing was interrupted".to_owned()),
    }
}
