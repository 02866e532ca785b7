//! Loading OCI archives into containerd with the `ctr` tool of the same package. Knows nothing of archives' insides.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

use super::config::Snapshotter;
use crate::{GrpcRuntime, Runtime};

/// Time one archive may take.
const IMPORT: Duration = Duration::from_secs(600);
/// Time until the runtime's image list has what was imported.
const VISIBLE: Duration = Duration::from_secs(10);

/// Why an archive could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The archive cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The tool could not be run.
    #[error("cannot run ctr (package containerd): {0}")]
    Tool(std::io::Error),
    /// The tool refused the archive.
    #[error("cannot import {}: {message}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What the tool says.
        message: String,
    },
    /// It took too long.
    #[error("importing {} took longer than {} s", path.display(), IMPORT.as_secs())]
    TooSlow {
        /// The file.
        path: PathBuf,
    },
}

/// Loads one archive into the containerd at `socket`, unpacks it, and returns the names of the images in it once the
/// runtime lists them.
///
/// # Errors
/// When the archive is unreadable or no OCI archive, or the tool is missing.
pub async fn import(
    socket: &Path,
    snapshotter: Snapshotter,
    archive: &Path,
) -> Result<Vec<String>, ImportError> {
    let fail = |source| ImportError::Archive { path: archive.to_owned(), source };
    tokio::fs::metadata(archive).await.map_err(fail)?;
    let command = Command::new("ctr")
        .arg("--address")
        .arg(socket)
        .args(["--namespace", "k8s.io", "images", "import", "--snapshotter", snapshotter.name()])
        .arg(archive)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(IMPORT, command)
        .await
        .map_err(|_| ImportError::TooSlow { path: archive.to_owned() })?
        .map_err(ImportError::Tool)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(ImportError::Refused { path: archive.to_owned(), message });
    }
    let names = imported(&String::from_utf8_lossy(&output.stdout));
    wait_until_listed(socket, &names).await;
    Ok(names)
}

/// The names in the tool's report: `unpacking NAME (sha256:…)...done`.
fn imported(report: &str) -> Vec<String> {
    report
        .lines()
        .filter_map(|line| line.trim().strip_prefix("unpacking ")?.split(' ').next())
        .map(str::to_owned)
        .collect()
}

/// The CRI learns of new images by an event; wait until it has, so that a pod created next finds its image.
async fn wait_until_listed(socket: &Path, names: &[String]) {
    let runtime = GrpcRuntime::new(socket);
    let deadline = Instant::now() + VISIBLE;
    for name in names {
        while !matches!(runtime.image_status(name.clone()).await, Ok(Some(_)))
            && Instant::now() < deadline
        {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_report() {
        let report = "unpacking docker.io/library/a:1 (sha256:12)...done\nsomething else\nunpacking b/c:2 (sha256:34)...";
        assert_eq!(imported(report), ["docker.io/library/a:1", "b/c:2"]);
    }
}
