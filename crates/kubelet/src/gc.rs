//! Removing what nobody needs any more: dead containers beyond the newest, broken sandboxes, remains of pods that are
//! gone, images when the disk is nearly full.

use std::{
    collections::{HashMap, HashSet},
    fs,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cri::v1;
use nix::sys::statvfs::statvfs;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    actor::remove_sandboxes,
    context::Context,
    kubelet::known_uids,
    mounts,
    spec::{CONTAINER_NAME, NODE, POD_UID},
};

/// How often dead containers are looked for (upstream's).
const PERIOD: Duration = Duration::from_secs(60);
/// Rounds between looks at the disk.
const IMAGE_ROUNDS: u32 = 5;
/// Dead containers kept for each container of a pod: the last one, for its log and its exit.
const KEEP: usize = 1;
/// Use of the disk, per cent, above which unused images go, and down to which (upstream's).
const IMAGES: (u64, u64) = (85, 80);

/// Collects until `shutdown`.
pub(crate) async fn collect_forever(context: Arc<Context>, shutdown: CancellationToken) {
    let mut round = 0u32;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        round = round.wrapping_add(1);
        if let Err(error) = collect(&context).await {
            debug!(%error, "garbage could not be collected");
        }
        if round.is_multiple_of(IMAGE_ROUNDS) {
            images(&context).await;
        }
    }
}

async fn collect(context: &Context) -> Result<(), cri::RuntimeError> {
    let mine = HashMap::from([(NODE.to_owned(), context.options.node_name.clone())]);
    let runtime = &context.runtime;
    let containers = runtime
        .list_containers(v1::ContainerFilter { label_selector: mine.clone(), ..Default::default() })
        .await?;
    for id in dead(&containers) {
        runtime.remove_container(id).await?;
    }
    let sandboxes = runtime
        .list_pod_sandboxes(v1::PodSandboxFilter { label_selector: mine, ..Default::default() })
        .await?;
    let known = known_uids(context);
    let occupied: HashSet<&str> = containers.iter().map(|c| c.pod_sandbox_id.as_str()).collect();
    let newest = newest_attempts(&sandboxes);
    for sandbox in &sandboxes {
        let uid = sandbox.labels.get(POD_UID).map(String::as_str).unwrap_or_default();
        let attempt = sandbox.metadata.as_ref().map_or(0, |m| m.attempt);
        let stale = sandbox.state() == v1::PodSandboxState::SandboxNotready
            && newest.get(uid).is_some_and(|newest| attempt < *newest)
            && !occupied.contains(sandbox.id.as_str());
        if stale {
            runtime.remove_pod_sandbox(sandbox.id.clone()).await?;
        }
    }
    if context.listed.load(Ordering::Acquire) {
        remove_stray_dirs(context, &known);
    }
    Ok(())
}

/// Ids of dead containers beyond the newest of each container.
fn dead(containers: &[v1::Container]) -> Vec<String> {
    let mut groups: HashMap<(&str, &str), Vec<&v1::Container>> = HashMap::new();
    for container in containers.iter().filter(|c| c.state() == v1::ContainerState::ContainerExited)
    {
        let label = |key: &str| container.labels.get(key).map(String::as_str).unwrap_or_default();
        groups.entry((label(POD_UID), label(CONTAINER_NAME))).or_default().push(container);
    }
    let mut surplus = Vec::new();
    for group in groups.values_mut() {
        group.sort_by_key(|c| std::cmp::Reverse(c.created_at));
        surplus.extend(group.iter().skip(KEEP).map(|c| c.id.clone()));
    }
    surplus
}

fn newest_attempts(sandboxes: &[v1::PodSandbox]) -> HashMap<&str, u32> {
    let mut newest = HashMap::new();
    for sandbox in sandboxes {
        let uid = sandbox.labels.get(POD_UID).map(String::as_str).unwrap_or_default();
        let attempt = sandbox.metadata.as_ref().map_or(0, |m| m.attempt);
        let entry = newest.entry(uid).or_insert(attempt);
        *entry = attempt.max(*entry);
    }
    newest
}

/// Directories of pods that nobody knows: left by a crash between two steps.
fn remove_stray_dirs(context: &Context, known: &HashSet<String>) {
    for entry in fs::read_dir(context.options.root_dir.join("pods")).into_iter().flatten().flatten()
    {
        let uid = entry.file_name().to_string_lossy().into_owned();
        if !known.contains(&uid)
            && let Err(error) = mounts::remove_tree(&entry.path())
        {
            debug!(%error, uid, "directory of a pod that is gone could not be removed");
        }
    }
}

/// Removes a pod that the API no longer has from the runtime and from disk.
pub(crate) async fn remove_orphan(context: &Context, uid: &str) {
    while let Err(error) = remove_sandboxes(context, uid).await {
        warn!(uid, error, "a pod that is gone could not be removed; trying again");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let dir = context.options.pod_dir(uid);
    if let Err(error) = mounts::remove_tree(&dir) {
        warn!(uid, %error, "directory of a pod that is gone could not be removed");
    }
}

/// Removes unused images when the disk is nearly full, largest first.
async fn images(context: &Context) {
    let used = || {
        let stat = statvfs(&context.options.root_dir).ok()?;
        let (all, free) = (stat.blocks().max(1), stat.blocks_available());
        Some(100 - free * 100 / all)
    };
    if used().is_none_or(|percent| percent < IMAGES.0) {
        return;
    }
    let (Ok(mut images), Ok(containers)) = (
        context.runtime.list_images().await,
        context.runtime.list_containers(v1::ContainerFilter::default()).await,
    ) else {
        return;
    };
    let in_use: HashSet<String> = containers.into_iter().map(|c| c.image_ref).collect();
    images.retain(|image| !image.pinned && !in_use.contains(&image.id) && !is_pause(image));
    images.sort_by_key(|image| std::cmp::Reverse(image.size));
    for image in images {
        info!(
            image = image.id,
            size = image.size,
            "removing an unused image: the disk is nearly full"
        );
        if let Err(error) = context.runtime.remove_image(image.id).await {
            warn!(%error, "an image could not be removed");
        }
        if used().is_none_or(|percent| percent < IMAGES.1) {
            return;
        }
    }
}

/// The image of sandboxes is always needed and cannot be pulled again.
fn is_pause(image: &v1::Image) -> bool {
    image.repo_tags.iter().any(|tag| tag.contains("/pause:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_dead_container_is_kept() {
        let container =
            |id: &str, name: &str, created_at: i64, state: v1::ContainerState| v1::Container {
                id: id.to_owned(),
                created_at,
                state: state.into(),
                labels: [
                    (POD_UID.to_owned(), "u".to_owned()),
                    (CONTAINER_NAME.to_owned(), name.to_owned()),
                ]
                .into(),
                ..Default::default()
            };
        let exited = v1::ContainerState::ContainerExited;
        let all = [
            container("1", "a", 1, exited),
            container("2", "a", 2, exited),
            container("3", "a", 3, v1::ContainerState::ContainerRunning),
            container("4", "b", 1, exited),
        ];
        assert_eq!(dead(&all), ["1"]);
    }
}
