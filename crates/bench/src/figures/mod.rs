//! The benches, one a file, and what they have in common.

pub(crate) mod api;
mod fanout;
pub(crate) mod idle;
pub(crate) mod network;
pub(crate) mod nodes;
pub(crate) mod pods;
pub(crate) mod up;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::Method;
use serde_json::Value;
use testkit::{Cluster, ClusterOptions};

use crate::Subject;
use crate::endpoint::{Connection, request};

/// Says on standard error what is going on; figures go to standard output.
fn tell(what: &str) {
    eprintln!("  {what}");
}

/// No single step of a bench may take longer.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A cluster whose node is Ready.
fn start(subject: &Subject) -> anyhow::Result<Cluster> {
    ensure!(
        subject.skiff.is_file(),
        "there is no {}: `cargo xtask bench` builds it",
        subject.skiff.display()
    );
    Ok(Cluster::start_with(&subject.skiff, ClusterOptions::default()))
}

fn kubeconfig(cluster: &Cluster) -> PathBuf {
    cluster.directory().join("admin.kubeconfig")
}

/// The image that pods of benches run.
const IMAGE: &str = "skiff.local/website:1.0.0";

fn import_image(subject: &Subject, cluster: &Cluster) -> anyhow::Result<()> {
    let archive = subject.images.join("website-1.0.0.tar");
    ensure!(archive.is_file(), "there is no {}: run `cargo xtask images`", archive.display());
    cluster.import(&[absolute(&archive)?]);
    Ok(())
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}

/// Whether an object has condition `kind` with status True.
fn has_condition(object: &Value, kind: &str) -> bool {
    object["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one["type"] == kind && one["status"] == "True"))
}

/// Waits until something can be read: what the cluster makes by itself after its start.
async fn appears(connection: &mut Connection, path: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match connection.exchange(request(Method::GET, path, "")).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
