//! The pod network as ip(8) alone would make it, without nftables: what the real one is measured
//! against.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, ensure};
use network::lab::{Interface, Lab, Namespace};

/// Two nodes, the first with two pods, the second with one.
pub(crate) struct Plain {
    pub(crate) near: Namespace,
    pub(crate) server: Namespace,
    pub(crate) far: Namespace,
    /// Where `server` is reached, by pods of both nodes.
    pub(crate) address: SocketAddr,
}

/// Runs `ip` with arguments separated by blanks.
fn ip(namespace: &Namespace, arguments: &str) -> anyhow::Result<()> {
    let mut command: Command = namespace.command("ip");
    let output = command.args(arguments.split_whitespace()).output().context("run ip")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Builds it with this packet size.
pub(crate) fn build(lab: &Lab, mtu: u32, port: u16) -> anyhow::Result<Plain> {
    let machine = |name: &str| anyhow::Ok(lab.machine(name)?);
    let nodes = [machine("plain-1")?, machine("plain-2")?];
    let pods = [machine("plain-near")?, machine("plain-server")?, machine("plain-far")?];
    let [one, two] = nodes.each_ref().map(|node| node.namespace());
    // The nodes share a segment as those of the cluster do.
    let segment = lab.segment("plain")?;
    for (number, node) in [(1, &nodes[0]), (2, &nodes[1])] {
        let (namespace, other) = (node.namespace(), 3 - number);
        node.forward()?;
        let address = format!("192.0.2.{number}/24").parse().context("an address")?;
        segment.attach(&format!("plain-{number}"), namespace, &Interface::new("eth0", address))?;
        ip(namespace, &format!("link add br0 address 0a:58:0a:00:0{number}:01 type bridge"))?;
        ip(namespace, &format!("link set br0 mtu {mtu} up"))?;
        ip(namespace, &format!("addr add 10.0.{number}.1/24 dev br0"))?;
        ip(
            namespace,
            &format!(
                "link add vx0 address 0a:59:00:00:00:0{number} mtu {mtu} type vxlan id 9 local 192.0.2.{number} dev eth0 dstport 4790 nolearning"
            ),
        )?;
        ip(namespace, "link set vx0 up")?;
        ip(namespace, &format!("route add 10.0.{other}.0/24 via 10.0.{other}.1 dev vx0 onlink"))?;
        let mac = format!("0a:59:00:00:00:0{other}");
        ip(namespace, &format!("neigh add 10.0.{other}.1 lladdr {mac} dev vx0 nud permanent"))?;
        let mut bridge = namespace.command("bridge");
        let fdb = format!("fdb append {mac} dev vx0 dst 192.0.2.{other}");
        let status = bridge.args(fdb.split_whitespace()).status().context("run bridge")?;
        ensure!(status.success(), "bridge {fdb}");
    }
    for (number, (pod, (node, address))) in
        pods.iter().zip([(one, "10.0.1.2"), (one, "10.0.1.3"), (two, "10.0.2.2")]).enumerate()
    {
        let namespace = pod.namespace();
        let path = namespace.path().display().to_string();
        ip(
            node,
            &format!(
                "link add pod{number} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {path}"
            ),
        )?;
        ip(node, &format!("link set pod{number} master br0 up"))?;
        let gateway = format!("{}1", &address[..address.len() - 1]);
        ip(namespace, "link set eth0 up")?;
        ip(namespace, &format!("addr add {address}/32 dev eth0"))?;
        ip(namespace, &format!("route add {gateway}/32 dev eth0"))?;
        ip(namespace, &format!("route add default via {gateway}"))?;
    }
    let [near, server, far] = pods.map(|pod| pod.namespace().clone());
    Ok(Plain { near, server, far, address: SocketAddr::from(([10, 0, 1, 3], port)) })
}
