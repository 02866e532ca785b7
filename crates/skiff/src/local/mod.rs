//! Further nodes of a cluster on one machine (`skiff up --nodes N`): agents as child processes, each in
//! a network and a view of mounts of its own, with its data below the cluster's.
//!
//! They are nodes like any other, joined with a token; what is special is only who starts them. They
//! outlive the process that did, and the next one adopts them. Knows nothing of what an agent does.

mod agents;
mod end;
mod flags;
mod wires;

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use ipnet::{IpNet, Ipv4Net};

use crate::cluster::NodeFlags;
use crate::layout::Layout;
use crate::machine;

pub(crate) use agents::{Agents, Told, all_ready};
pub(crate) use end::{remove, running};
use wires::Wires;

/// What `skiff up` can be told about further nodes.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Several nodes on this machine")]
pub(crate) struct LocalFlags {
    /// How many nodes; all but the first get a network, mounts and processes of their own [default: as many as before, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    nodes: Option<u8>,
    /// Addresses of the nodes, where there are several [default: a /24 of 10.66.0.0/16 that is free]
    #[arg(long, value_name = "CIDR")]
    node_network: Option<Ipv4Net>,
}

impl LocalFlags {
    /// How many nodes there are to be beside the first.
    pub(crate) fn others(&self, layout: &Layout) -> usize {
        self.nodes.map_or_else(|| layouts(layout).len(), |nodes| usize::from(nodes) - 1)
    }
}

/// All nodes but the first, before anything of them exists.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    layout: Layout,
    wires: Wires,
    nodes: Vec<Node>,
}

/// One node that has an agent.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Name of the Node object.
    pub(crate) name: String,
    /// Name of its machine in the lab.
    machine: String,
    address: IpAddr,
    layout: Layout,
}

impl Plan {
    /// `None` where one node is wanted and there are no others. `used` are addresses that nodes cannot have.
    pub(crate) fn new(
        flags: &LocalFlags,
        layout: &Layout,
        first: &NodeFlags,
        used: &[IpNet],
    ) -> anyhow::Result<Option<Self>> {
        let others = flags.others(layout);
        if others == 0 && layouts(layout).is_empty() {
            return Ok(None);
        }
        let first_name = first.node_name.clone().map_or_else(machine::node_name, Ok)?;
        let wires =
            Wires::choose(flags.node_network, layout, [&first.bridge, &first.nft_table], used)?;
        let node = |number: usize| {
            let name = format!("{first_name}-{number}");
            let address = wires.address(number)?;
            let (machine, layout) = (format!("n{number}"), layout.node(&name));
            anyhow::Ok(Node { name, machine, address, layout })
        };
        let nodes = (2..=others + 1).map(node).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Some(Self { layout: layout.clone(), wires, nodes }))
    }

    /// The first node's address on the segment, where there are others.
    pub(crate) fn first_address(&self) -> Option<IpAddr> {
        if self.nodes.is_empty() { None } else { self.wires.address(1).ok() }
    }
}

/// Data directories of the further nodes that a cluster has or had.
pub(crate) fn layouts(layout: &Layout) -> Vec<Layout> {
    let entries = std::fs::read_dir(layout.nodes()).into_iter().flatten().flatten();
    let directories = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    let mut paths: Vec<PathBuf> = directories.collect();
    paths.sort_unstable();
    paths.iter().map(|path| Layout::new(path)).collect()
}

/// The lab of a cluster's further nodes.
fn lab(layout: &Layout) -> PathBuf {
    layout.runtime().join("lab")
}

/// Names of devices have at most 15 bytes, and `-lan` is appended.
fn check_bridge(bridge: &str) -> anyhow::Result<()> {
    ensure!(
        bridge.len() <= 11,
        "--bridge {bridge}: with several nodes the name may have at most 11 characters"
    );
    Ok(())
}

/// Where the layout of the wires is kept: nodes keep their addresses.
fn network_file(layout: &Layout) -> PathBuf {
    layout.nodes().join("network")
}

fn read_network(layout: &Layout) -> anyhow::Result<Option<Ipv4Net>> {
    let path = network_file(layout);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            text.trim().parse().map(Some).with_context(|| format!("{} is damaged", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}
