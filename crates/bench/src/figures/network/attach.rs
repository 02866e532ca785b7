//! Pods without containers: network namespaces that a node's own plugin attaches, as the container
//! runtime has it do.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::Stdio;

use anyhow::{Context, ensure};
use network::lab::{Lab, Namespace};
use serde_json::Value;
use testkit::Cluster;

/// One attached namespace.
pub(crate) struct Pod {
    pub(crate) namespace: Namespace,
    pub(crate) address: IpAddr,
    /// Largest packet of its device, in bytes.
    pub(crate) mtu: u32,
    /// By which the node's programs find it: their view of files is another.
    _open: File,
}

/// Attaches a namespace called `name` to node `index` of the cluster.
pub(crate) fn attach(
    lab: &Lab,
    cluster: &Cluster,
    index: usize,
    name: &str,
) -> anyhow::Result<Pod> {
    let namespace = lab.machine(name)?.namespace().clone();
    let open = File::open(namespace.path()).context("open the pod's namespace")?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), open.as_raw_fd());
    let directory = cluster.node_directory(index).join("containerd/cni");
    let list = directory.join("conf/10-skiff.conflist");
    let text = std::fs::read(&list).with_context(|| list.display().to_string())?;
    let list: Value = serde_json::from_slice(&text)?;
    let mut plugin = list["plugins"][0].clone();
    plugin["cniVersion"] = list["cniVersion"].clone();
    plugin["name"] = list["name"].clone();
    let mut child = cluster
        .node(index)
        .command(directory.join("bin").join(network::cni::PLUGIN_NAME))
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", name)
        .env("CNI_NETNS", path)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", directory.join("bin"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("run the plugin")?;
    let mut input = child.stdin.take().context("the plugin has no input")?;
    input.write_all(plugin.to_string().as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the plugin refused: {said}");
    let result: Value = serde_json::from_str(&said)?;
    let address = result["ips"][0]["address"].as_str().context("the pod has no address")?;
    let address = address.split('/').next().unwrap_or_default().parse()?;
    let shown = namespace.command("ip").args(["-o", "link", "show", "eth0"]).output()?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let mut words = shown.split_whitespace().skip_while(|word| *word != "mtu");
    let mtu = words.nth(1).context("the pod has no packet size")?.parse()?;
    Ok(Pod { namespace, address, mtu, _open: open })
}
