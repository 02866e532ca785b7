//! `skiff status`: does it run, is it well, what is on it.

use std::process::ExitCode;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};

use crate::instance::{self, Description, Role};
use crate::layout::Layout;

pub(crate) fn run(layout: &Layout) -> anyhow::Result<ExitCode> {
    let Some((description, serving)) = instance::find(layout)? else {
        println!("nothing in {}: start a cluster with `skiff up`", layout.root().display());
        return Ok(ExitCode::FAILURE);
    };
    let what = match description.role {
        Role::Up => "cluster",
        Role::Server => "server",
        Role::Agent => "node",
    };
    if !serving {
        println!(
            "{what} in {} is stopped (last run by skiff {})",
            layout.root().display(),
            description.version
        );
        return Ok(ExitCode::FAILURE);
    }
    println!(
        "{what:11} {} (skiff {}, process {})",
        layout.root().display(),
        description.version,
        description.pid
    );
    println!("server      {}", description.server);
    if description.role == Role::Agent {
        return Ok(agent(layout, &description));
    }
    println!("kubeconfig  {}", layout.kubeconfig().display());
    let well = super::block_on(report(layout, description.role))?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a node's own machine can say about it: it has no right to read more.
fn agent(layout: &Layout, description: &Description) -> ExitCode {
    let name = description.node.as_ref().map_or("", |node| &node.node_name);
    let ready = layout.ready_mark(description.pid.unsigned_abs()).exists();
    println!(
        "name        {name} {}",
        if ready { "Ready since its start" } else { "not Ready yet" }
    );
    for (what, file) in [
        ("identity", "kubelet-client"),
        ("network", "network-client"),
        ("serving", "kubelet-serving"),
    ] {
        let identity = pki::Identity::load(&layout.pki().join(format!("{file}.pem")));
        match identity.ok().flatten().and_then(|identity| identity.validity().ok()) {
            Some((_, end)) => println!("{what:11} valid until {end}"),
            None => println!("{what:11} none yet"),
        }
    }
    if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints nodes and pods; whether all nodes are Ready.
async fn report(layout: &Layout, role: Role) -> anyhow::Result<bool> {
    let client =
        client::from_kubeconfig(&layout.kubeconfig()).await.context("connect to the API server")?;
    let nodes = Api::<Node>::all(client.clone())
        .list(&ListParams::default())
        .await
        .context("list nodes")?;
    // A server may wait for its first node.
    let mut well = role == Role::Server || !nodes.items.is_empty();
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
