//! `skiff image`: what is in the node's image store, and how to put something there without a registry.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use cri::Runtime;
use cri::containerd::Snapshotter;

use crate::cli::ImageAction;
use crate::cluster::runtime_options;
use crate::layout::Layout;

pub(crate) fn run(layout: &Layout, action: ImageAction) -> anyhow::Result<ExitCode> {
    let description = super::running(layout)?;
    let socket = description.runtime_socket.unwrap_or_else(|| runtime_options(layout).socket());
    super::block_on(async {
        match action {
            ImageAction::Import { files } => {
                import(&socket, description.snapshotter.as_deref(), files).await
            }
            ImageAction::List => list(&socket).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn import(
    socket: &std::path::Path,
    snapshotter: Option<&str>,
    files: Vec<PathBuf>,
) -> anyhow::Result<()> {
    let snapshotter = match snapshotter {
        Some("native") => Snapshotter::Native,
        _ => Snapshotter::Overlay,
    };
    for file in files {
        for name in cri::containerd::import(socket, snapshotter, &file).await? {
            println!("imported {name}");
        }
    }
    Ok(())
}

async fn list(socket: &std::path::Path) -> anyhow::Result<()> {
    let images = cri::GrpcRuntime::new(socket)
        .list_images()
        .await
        .context("ask the container runtime for its images")?;
    let mut rows: Vec<(String, String, u64)> = images
        .into_iter()
        .flat_map(|image| {
            let id = short(&image.id);
            let names =
                if image.repo_tags.is_empty() { image.repo_digests } else { image.repo_tags };
            names.into_iter().map(move |name| (name, id.clone(), image.size))
        })
        .collect();
    rows.sort();
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0).max(5);
    println!("{:width$}  {:12}  SIZE", "IMAGE", "ID");
    for (name, id, size) in rows {
        println!("{name:width$}  {id:12}  {:.1} MB", size as f64 / 1e6);
    }
    Ok(())
}

fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}
