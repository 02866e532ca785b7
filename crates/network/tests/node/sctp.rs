//! Services of protocol SCTP, by the packets that open associations: a kernel may translate them and
//! have no sockets for them.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd,
    path::Path,
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::json;

use crate::{
    api::Fake,
    machines::until,
    services::{Cluster, put_and_wait, put_service, ready},
    world::{Namespace, Node, Pod},
};

const SCTP: u8 = 132;
/// There is one of these where the kernel follows associations, and so can translate them.
const FOLLOWED: &str = "/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established";
/// Of whoever opens one.
const PORT: u16 = 40_000;

/// CRC-32C as RFC 9260 wants it, bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// An IPv4 packet with the chunk INIT alone.
fn init(from: Ipv4Addr, to: SocketAddrV4) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 52, 0, 1, 0, 0, 64, SCTP, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.ip().octets());
    packet.extend(PORT.to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9]);
    let sum = checksum(&packet[20..]);
    packet[28..32].copy_from_slice(&sum.to_le_bytes());
    packet
}

/// Sends an INIT from a namespace.
fn open(namespace: &Namespace, from: Ipv4Addr, to: SocketAddrV4) {
    namespace.run(move || {
        let raw =
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw);
        let raw = raw.expect("a raw socket");
        let address = SockaddrIn::from(to);
        let packet = init(from, to);
        sendto(raw.as_raw_fd(), &packet, &address, MsgFlags::empty()).expect("send");
    });
}

/// Runs `ask` until an INIT for the pod's port comes to the pod; from whom.
fn comes_to(pod: &Pod, port: u16, mut ask: impl FnMut()) -> Ipv4Addr {
    let listening = pod.namespace.run(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let all = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll);
        let all = all.expect("a packet socket");
        setsockopt(&all, sockopt::ReceiveTimeout, &TimeVal::milliseconds(200)).expect("timeout");
        all
    });
    let mut seen = None;
    until("an INIT comes to the pod", || {
        ask();
        let mut frame = [0; 2048];
        while let Ok(length) = recv(listening.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            let packet = frame.get(14..length).unwrap_or_default();
            let [a, b, c, d] = pod.address.octets();
            let is_ours = packet.len() >= 32
                && packet[9] == SCTP
                && packet[16..20] == [a, b, c, d]
                && packet[22..24] == port.to_be_bytes();
            if is_ours {
                seen = Some(Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]));
                return true;
            }
        }
        false
    });
    seen.expect("it came")
}

pub(crate) fn associations_are_led(node: &Node) {
    assert_eq!(checksum(b"123456789"), 0xe306_9283, "as the standard says");
    if !Path::new(FOLLOWED).exists() {
        println!("skipped: the kernel follows no SCTP associations");
        return;
    }
    let api = Fake::new();
    put_service(
        &api,
        "signals",
        json!({
            "type": "NodePort", "clusterIP": "10.96.0.21", "clusterIPs": ["10.96.0.21"],
            "ports": [{"port": 36412, "protocol": "SCTP", "nodePort": 30412, "targetPort": 2905}],
        }),
    );
    let (server, client) = (Pod::start(node, "sctp-server"), Pod::start(node, "sctp-client"));
    let cluster = Cluster::start(node, api);
    put_and_wait(&cluster, "signals", "SCTP", 2905, &ready(&[&server]));
    let cluster_ip = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 21), 36412);
    let own = client.address;
    let seen = comes_to(&server, 2905, || open(&client.namespace, own, cluster_ip));
    assert_eq!(seen, own, "a pod's address is kept");
    let node_port = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 30412);
    let stranger = Ipv4Addr::new(192, 0, 2, 9);
    let seen = comes_to(&server, 2905, || open(&node.outside, stranger, node_port));
    assert_eq!(seen, stranger, "an endpoint of this node sees the client");
    cluster.stop();
    server.stop(node);
    client.stop(node);
}
