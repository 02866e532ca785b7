//! `skiff status`: does it run, is it well, what is on it.

use std::process::ExitCode;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};

use crate::instance;
use crate::layout::Layout;

pub(crate) fn run(layout: &Layout) -> anyhow::Result<ExitCode> {
    let Some((description, serving)) = instance::find(layout)? else {
        println!("no cluster in {}: start one with `skiff up`", layout.root().display());
        return Ok(ExitCode::FAILURE);
    };
    if !serving {
        println!(
            "cluster in {} is stopped (last run by skiff {})",
            layout.root().display(),
            description.version
        );
        return Ok(ExitCode::FAILURE);
    }
    println!(
        "cluster     {} (skiff {}, process {})",
        layout.root().display(),
        description.version,
        description.pid
    );
    println!("server      {}", description.server);
    println!("kubeconfig  {}", layout.kubeconfig().display());
    let well = super::block_on(report(layout))?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints nodes and pods; whether all nodes are Ready.
async fn report(layout: &Layout) -> anyhow::Result<bool> {
    let client =
        client::from_kubeconfig(&layout.kubeconfig()).await.context("connect to the API server")?;
    let nodes = Api::<Node>::all(client.clone())
        .list(&ListParams::default())
        .await
        .context("list nodes")?;
    let mut well = !nodes.items.is_empty();
    for node in &nodes.items {
        let ready = is_ready(node);
        well &= ready;
        let name = node.metadata.name.as_deref().unwrap_or_default();
        println!("node        {name} {}", if ready { "Ready" } else { "NotReady" });
    }
    let pods = Api::<Pod>::all(client).list(&ListParams::default()).await.context("list pods")?;
    let running = pods.items.iter().filter(|pod| phase(pod) == "Running").count();
    println!("pods        {running} running of {}", pods.items.len());
    Ok(well)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}
