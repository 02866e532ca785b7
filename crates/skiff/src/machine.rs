//! What this machine is called, by which address others reach it, and whether it is going down.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, bail};

/// The node's name: the host's, in lower case, as Kubernetes names must be.
pub(crate) fn node_name() -> anyhow::Result<String> {
    let host = nix::unistd::gethostname().context("read the host name")?;
    let name = host.to_string_lossy().trim().to_lowercase();
    if name.is_empty() {
        bail!("this machine has no host name: set one, or give --node-name");
    }
    Ok(name)
}

/// The address that this machine would use to reach others: the source address of its default
/// route, else the first address that is not loopback. `None` on a machine without a network.
pub(crate) fn node_address(ignore_interface: &str) -> Option<IpAddr> {
    default_route_source().or_else(|| first_address(ignore_interface))
}

/// Connecting a datagram socket sends nothing; it only makes the kernel choose a route.
fn default_route_source() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

fn first_address(ignore_interface: &str) -> Option<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    interfaces
        .filter(|interface| interface.interface_name != ignore_interface)
        .filter_map(|interface| {
            interface.address?.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::ip)
        })
        .find(|address| !address.is_loopback() && !address.is_link_local())
        .map(IpAddr::V4)
}

/// How long the machine's service manager may take to say how it is.
const ASK: Duration = Duration::from_secs(5);

/// Whether the machine is on its way down, as systemd sees it; without systemd nobody knows.
pub(crate) async fn goes_down() -> bool {
    let mut ask = tokio::process::Command::new("systemctl");
    ask.arg("is-system-running").kill_on_drop(true);
    let answer = tokio::time::timeout(ASK, ask.output()).await;
    matches!(answer, Ok(Ok(output)) if output.stdout.starts_with(b"stopping"))
}
