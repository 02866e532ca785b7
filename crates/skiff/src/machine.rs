//! What this machine is called, by which address others reach it, and whether it is going down.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
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

/// Addresses of each family that are nobody's: where the default route leads.
const ANYWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// The address that this machine would use to reach others: the source address of its default
/// route, else the first address that is not loopback; IPv6 where there is no IPv4. `None` on a
/// machine without a network.
pub(crate) fn node_address(ignore_interface: &str) -> Option<IpAddr> {
    ANYWHERE.iter().find_map(|anywhere| {
        source_to(*anywhere).or_else(|| first_address(ignore_interface, anywhere.is_ipv4()))
    })
}

/// Connecting a datagram socket sends nothing; it only makes the kernel choose a route.
fn source_to(anywhere: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if anywhere.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((anywhere, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| leads_elsewhere(*address))
}

fn first_address(ignore_interface: &str, ipv4: bool) -> Option<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    interfaces
        .filter(|interface| interface.interface_name != ignore_interface)
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .find(|address| address.is_ipv4() == ipv4 && leads_elsewhere(*address))
}

/// Whether other machines may know an address.
fn leads_elsewhere(address: IpAddr) -> bool {
    let near = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !near && !address.is_unspecified() && !address.is_loopback()
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
