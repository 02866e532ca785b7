//! The end of further nodes: their agents, pods, machines and wires.
//!
//! Works on whatever is still there, as `skiff down` does: each node is taken down on its own machine by
//! that very command.

use std::process::{Output, Stdio};

use anyhow::{Context, bail};
use futures::future::join_all;
use tokio::process::Command;

use super::{Plan, layouts, wires};
use crate::instance::{self, Description, NodeTraces};
use crate::layout::Layout;

/// Stops all further nodes of a cluster with their pods, and removes what they left in the kernel.
/// `traces` is what the first node leaves.
pub(crate) async fn remove(layout: &Layout, traces: &NodeTraces) -> anyhow::Result<()> {
    let nodes = layouts(layout);
    let ended = join_all(nodes.iter().map(|node| take_down(layout, node))).await;
    let ended: anyhow::Result<()> = ended.into_iter().collect();
    ended.and(wires::disconnect(layout, &traces.table))
}

/// Stops those nodes of earlier starts that are not wanted any more, and forgets their data.
pub(super) async fn remove_beyond(plan: &Plan) -> anyhow::Result<()> {
    let wanted = |layout: &Layout| plan.nodes.iter().any(|n| n.layout.root() == layout.root());
    let beyond = layouts(&plan.layout);
    for node in beyond.iter().filter(|layout| !wanted(layout)) {
        take_down(&plan.layout, node).await?;
        wires::remove_machine(&plan.layout, &machine_name(node))?;
        let root = node.root();
        std::fs::remove_dir_all(root).with_context(|| format!("remove {}", root.display()))?;
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        tracing::warn!("node {name} has been taken down; `kubectl delete node {name}` forgets it");
    }
    if !plan.nodes.is_empty() {
        return Ok(());
    }
    plan.disconnect()?;
    let nodes = plan.layout.nodes();
    std::fs::remove_dir_all(&nodes).with_context(|| format!("remove {}", nodes.display()))
}

/// `skiff down` on the node's machine. Where that has gone, as after a reboot, nothing runs.
async fn take_down(layout: &Layout, node: &Layout) -> anyhow::Result<()> {
    let Some(machine) = wires::machine(layout, &machine_name(node))? else { return Ok(()) };
    let name = node.root().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let executable = std::env::current_exe().context("find this executable")?;
    let mut command = machine.command(executable);
    command.arg("down").arg("--data-dir").arg(node.root()).stdin(Stdio::null());
    let output: Output = Command::from(command)
        .output()
        .await
        .with_context(|| format!("start `skiff down` on node {name}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!("take down node {name}: {}", reason.trim());
    }
    Ok(())
}

/// A node's machine is called by the number at the end of the node's name.
fn machine_name(node: &Layout) -> String {
    let name = node.root().file_name().unwrap_or_default().to_string_lossy();
    let number = name.rsplit('-').next().unwrap_or_default();
    format!("n{number}")
}

/// Data directories of the further nodes whose agents run, with their descriptions.
pub(crate) fn running(layout: &Layout) -> Vec<(Layout, Description)> {
    let found = layouts(layout).into_iter().map(|node| {
        let description = instance::find(&node).ok().flatten();
        description.filter(|(_, serving)| *serving).map(|(description, _)| (node, description))
    });
    found.flatten().collect()
}
