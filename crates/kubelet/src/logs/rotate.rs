//! Rotation: a log that has grown too long is moved aside, the runtime opens a new one, the oldest go.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    context::Context,
    spec::{PodId, container::log_path},
};

/// How often sizes are looked at (upstream's).
const PERIOD: Duration = Duration::from_secs(10);

/// Rotates the logs of all running containers until `shutdown`.
pub(crate) async fn rotate_forever(context: Arc<Context>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        for (id, path) in running(&context) {
            if fs::metadata(&path).is_ok_and(|m| m.len() >= context.options.log_max_bytes) {
                rotate(&context, &id, &path).await;
            }
        }
    }
}

/// Ids and log files of running containers.
fn running(context: &Context) -> Vec<(String, PathBuf)> {
    let pods = context.pods.lock();
    let mut found = Vec::new();
    for state in pods.values() {
        let id = PodId::of(&state.pod);
        let dir = context.options.pod_log_dir(&id.namespace, &id.name, &id.uid);
        for container in &state.containers {
            if let Some(running) = container.running() {
                found.push((
                    running.id.clone(),
                    dir.join(log_path(&container.name, container.restarts)),
                ));
            }
        }
    }
    found
}

async fn rotate(context: &Context, id: &str, path: &Path) {
    let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{stamp}"));
    let aside = PathBuf::from(aside);
    if let Err(error) = fs::rename(path, &aside) {
        return warn!(%error, path = %path.display(), "log could not be rotated");
    }
    if let Err(error) = context.runtime.reopen_container_log(id.to_owned()).await {
        // The runtime still writes to the old file: put it back, or the log would be lost to readers.
        warn!(%error, container = id, "log could not be reopened");
        let _ = fs::rename(&aside, path);
        return;
    }
    if let Err(error) = prune(path, context.options.log_max_files.saturating_sub(1)) {
        warn!(%error, path = %path.display(), "old logs could not be removed");
    }
}

/// Removes the oldest rotated files of a log beyond `keep`.
fn prune(path: &Path, keep: usize) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut rotated: Vec<PathBuf> = fs::read_dir(dir)?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    rotated.sort();
    let surplus = rotated.len().saturating_sub(keep);
    rotated.iter().take(surplus).try_for_each(fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        for name in ["0.log", "0.log.1", "0.log.2", "0.log.3", "1.log"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        prune(&log, 2).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["0.log", "0.log.2", "0.log.3", "1.log"]);
    }
}
