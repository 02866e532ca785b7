//! The segment between the nodes of one machine: its addresses, its wires, and the way out through the
//! first node.

use std::net::IpAddr;

use anyhow::Context;
use ipnet::{IpNet, Ipv4Net};
use network::lab::{Interface, Lab, Machine, Masquerade, Namespace};

use super::{Plan, check_bridge, lab, network_file, read_network};
use crate::layout::Layout;

/// The segment, and the first node's port.
const SEGMENT: &str = "lan";
const FIRST: &str = "n1";
/// The others' device.
const DEVICE: &str = "eth0";
/// Where a free network is looked for.
const RANGE: ([u8; 4], u8) = ([10, 66, 0, 0], 16);

/// Names and addresses of the segment.
#[derive(Debug, Clone)]
pub(super) struct Wires {
    network: Ipv4Net,
    /// The first node's device.
    pub(super) device: String,
    /// The first node's bridge of pods.
    bridge: String,
    /// The table that hides the others behind the first.
    table: String,
}

impl Wires {
    /// The network of an earlier start, else the one asked for, else one that is free. `bridge` and
    /// `table` are the first node's.
    pub(super) fn choose(
        wanted: Option<Ipv4Net>,
        layout: &Layout,
        [bridge, table]: [&str; 2],
        used: &[IpNet],
    ) -> anyhow::Result<Self> {
        check_bridge(bridge)?;
        let network = match (read_network(layout)?, wanted) {
            (Some(kept), Some(wanted)) if kept != wanted => anyhow::bail!(
                "--node-network {wanted}: the nodes have addresses of {kept} already; \
                 start anew with `skiff down --purge`"
            ),
            (Some(kept), _) => kept,
            (None, Some(wanted)) => check(wanted, used)?,
            (None, None) => free(&[used, &own_networks()].concat()).context(
                "10.66.0.0/16 has no free /24 for the nodes: give one with --node-network",
            )?,
        };
        Ok(Self {
            network,
            device: format!("{bridge}-lan"),
            bridge: bridge.to_owned(),
            table: format!("{table}-lan"),
        })
    }

    /// The address of node `number`, from 1.
    pub(super) fn address(&self, number: usize) -> anyhow::Result<IpAddr> {
        let address = self.network.hosts().nth(number - 1);
        address
            .map(IpAddr::V4)
            .with_context(|| format!("--node-network {} is too small", self.network))
    }

    fn interface(&self, name: &str, address: IpAddr) -> anyhow::Result<Interface> {
        Ok(Interface::new(name, IpNet::new(address, self.network.prefix_len())?))
    }
}

impl Plan {
    /// Removes machines and wires.
    pub(super) fn disconnect(&self) -> anyhow::Result<()> {
        remove(&self.layout, &self.wires.table)
    }

    /// Makes machines and wires, or finds those of an earlier start. Blocks for a few milliseconds.
    pub(super) fn connect(&self) -> anyhow::Result<Vec<Machine>> {
        let file = network_file(&self.layout);
        std::fs::create_dir_all(self.layout.nodes()).context("make the nodes' directory")?;
        std::fs::write(&file, self.wires.network.to_string())
            .with_context(|| format!("write {}", file.display()))?;
        let lab = Lab::open(lab(&self.layout))?;
        let segment = lab.segment(SEGMENT)?;
        let first = self.wires.address(1)?;
        let here = Namespace::own();
        segment.attach(FIRST, &here, &self.wires.interface(&self.wires.device, first)?)?;
        here.masquerade(&Masquerade {
            table: &self.wires.table,
            from: Some(self.wires.network.into()),
            not_out: &[&self.wires.device, &self.wires.bridge],
            ..Masquerade::default()
        })?;
        self.nodes
            .iter()
            .map(|node| {
                let machine = lab.machine(&node.machine)?;
                let interface = self.wires.interface(DEVICE, node.address)?.gateway(first);
                segment.attach(&node.machine, machine.namespace(), &interface)?;
                machine.separate(&node.layout.root().join("places"))?;
                Ok(machine)
            })
            .collect()
    }
}

fn check(wanted: Ipv4Net, used: &[IpNet]) -> anyhow::Result<Ipv4Net> {
    match used.iter().find(|used| overlap(used, &wanted.into())) {
        Some(used) => anyhow::bail!("--node-network {wanted} and {used} overlap"),
        None => Ok(wanted.trunc()),
    }
}

/// The first /24 of the range that overlaps nothing that is used.
fn free(used: &[IpNet]) -> Option<Ipv4Net> {
    let range = Ipv4Net::new(RANGE.0.into(), RANGE.1).ok()?;
    range.subnets(24).ok()?.find(|net| !used.iter().any(|used| overlap(used, &IpNet::V4(*net))))
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Networks that this machine's devices are on.
fn own_networks() -> Vec<IpNet> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    interfaces
        .filter_map(|interface| {
            let address = interface.address?.as_sockaddr_in()?.ip();
            let mask = interface.netmask?.as_sockaddr_in()?.ip();
            Ipv4Net::with_netmask(address, mask).ok().map(IpNet::V4)
        })
        .collect()
}

/// Removes machines and wires, and what hides them. What runs on the machines must have ended.
pub(super) fn disconnect(layout: &Layout, first_table: &str) -> anyhow::Result<()> {
    remove(layout, &format!("{first_table}-lan"))
}

fn remove(layout: &Layout, table: &str) -> anyhow::Result<()> {
    let directory = lab(layout);
    if !directory.exists() {
        return Ok(());
    }
    Lab::open(&directory)?.remove().context("remove the nodes' networks")?;
    Namespace::own().remove_masquerade(table).context("remove the nodes' way out")
}

/// Removes one machine. What runs on it must have ended.
pub(super) fn remove_machine(layout: &Layout, name: &str) -> anyhow::Result<()> {
    let directory = lab(layout);
    if directory.exists() {
        Lab::open(&directory)?.remove_machine(name).context("remove a node's network")?;
    }
    Ok(())
}

/// The machine of a node by its name in the lab, if it exists.
pub(super) fn machine(layout: &Layout, name: &str) -> anyhow::Result<Option<Machine>> {
    let directory = lab(layout);
    if !directory.exists() {
        return Ok(None);
    }
    let lab = Lab::open(&directory)?;
    let exists = lab.machines().iter().any(|machine| machine == name);
    if exists { Ok(Some(lab.machine(name)?)) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_free_is_found() {
        let nets = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|text| text.parse().expect("a network")).collect()
        };
        let found = |used: &[&str]| free(&nets(used)).map(|net| net.to_string());
        assert_eq!(found(&["192.168.1.0/24"]).as_deref(), Some("10.66.0.0/24"));
        let used = ["10.66.0.0/24", "10.66.1.128/25", "fd00::/8"];
        assert_eq!(found(&used).as_deref(), Some("10.66.2.0/24"));
        assert_eq!(found(&["10.0.0.0/8"]), None);
        let wanted: Ipv4Net = "10.5.0.7/24".parse().expect("a network");
        assert!(check(wanted, &nets(&["10.5.0.0/16"])).is_err());
        assert_eq!(
            check(wanted, &nets(&["10.6.0.0/16"])).expect("free").to_string(),
            "10.5.0.0/24"
        );
    }

    #[test]
    fn nodes_keep_their_network() {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(directory.path());
        let first = ["skiff0", "skiff"];
        std::fs::create_dir_all(layout.nodes()).expect("a directory");
        std::fs::write(network_file(&layout), "10.66.7.0/24").expect("write");
        let wires = Wires::choose(None, &layout, first, &[]).expect("the kept network");
        assert_eq!(wires.address(2).expect("an address").to_string(), "10.66.7.2");
        let other = "10.9.0.0/24".parse().expect("a network");
        let error = Wires::choose(Some(other), &layout, first, &[]).expect_err("it is kept");
        assert!(error.to_string().contains("10.66.7.0/24 already"), "{error}");
        assert!(Wires::choose(None, &layout, ["a-very-long-one", "skiff"], &[]).is_err());
    }
}
