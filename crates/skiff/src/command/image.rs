//! `skiff image`: what is in the image stores of this machine's nodes, and how to put something there
//! without a registry.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use cri::Runtime;
use cri::containerd::Snapshotter;

use crate::cli::ImageAction;
use crate::cluster::runtime_options;
use crate::layout::Layout;
use crate::local;

pub(crate) fn run(layout: &Layout, action: ImageAction) -> anyhow::Result<ExitCode> {
    match action {
        ImageAction::Import { node, files } => {
            let stores = stores(layout, node.as_deref())?;
            super::block_on(async {
                let imports = stores.iter().map(|store| import(store, &files));
                // Every node gets them at the same time; names are the same everywhere.
                let names = futures::future::try_join_all(imports).await?;
                names
                    .into_iter()
                    .next()
                    .into_iter()
                    .flatten()
                    .for_each(|name| println!("imported {name}"));
                Ok(())
            })?;
        }
        ImageAction::List { node } => {
            let stores = stores(layout, node.as_deref())?;
            let first = stores.first().context("there is no node")?;
            super::block_on(list(&first.socket))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The image store of one node.
struct Store {
    socket: PathBuf,
    snapshotter: Option<String>,
}

/// Those of all nodes that run on this machine, the cluster's own first; or that of the one named.
fn stores(layout: &Layout, wanted: Option<&str>) -> anyhow::Result<Vec<Store>> {
    let own = (layout.clone(), super::running(layout)?);
    let nodes = std::iter::once(own).chain(local::running(layout));
    let stores: Vec<Store> = nodes
        .filter_map(|(layout, description)| Some((layout, description.node?)))
        .filter(|(_, node)| wanted.is_none_or(|wanted| node.node_name == wanted))
        .map(|(layout, node)| Store {
            socket: node.runtime_socket.unwrap_or_else(|| runtime_options(&layout).socket()),
            snapshotter: node.snapshotter,
        })
        .collect();
    match (stores.is_empty(), wanted) {
        (false, _) => Ok(stores),
        (true, Some(name)) => bail!("no node {name} runs on this machine"),
        (true, None) => {
            bail!("there is no node in {}: a server alone has no images", layout.root().display())
        }
    }
}

async fn import(store: &Store, files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let snapshotter = match store.snapshotter.as_deref() {
        Some("native") => Snapshotter::Native,
        _ => Snapshotter::Overlay,
    };
    let mut names = Vec::new();
    for file in files {
        names.extend(cri::containerd::import(&store.socket, snapshotter, file).await?);
    }
    Ok(names)
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
