//! Datagrams by the handful: as many as wait are received with one system call, and replies of one length to one
//! asker leave as one, which the kernel cuts (UDP segmentation).
//!
//! Knows sockets and bytes, nothing of DNS.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmsg},
};
use tokio::{io::Interest, net::UdpSocket};

/// Datagrams received at once. The kernel cuts a datagram into at most 64.
const AT_ONCE: usize = 32;
/// Longest datagram received, in bytes; what is longer is cut and will not be understood.
const BYTES: usize = 4096;

/// Room for what is received at once.
pub(crate) struct Received {
    buffers: Vec<Vec<u8>>,
    /// Length and sender of each.
    datagrams: Vec<(usize, SocketAddr)>,
}

impl Received {
    pub(crate) fn new() -> Self {
        Self { buffers: vec![vec![0; BYTES]; AT_ONCE], datagrams: Vec::with_capacity(AT_ONCE) }
    }

    /// Waits for datagrams and takes those that have come.
    pub(crate) async fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        loop {
            socket.readable().await?;
            match socket.try_io(Interest::READABLE, || self.take(socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    fn take(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let Self { buffers, datagrams } = self;
        datagrams.clear();
        // Holds pointers, so it cannot wait for the next time.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(AT_ONCE, None);
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None)?;
        // A datagram without a sender cannot be answered; its place stays so that the others keep theirs.
        let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        datagrams.extend(received.map(|one| {
            (one.bytes, one.address.as_ref().and_then(socket_address).unwrap_or(nobody))
        }));
        Ok(())
    }

    /// What was received, and from whom.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        let parts = self.datagrams.iter().zip(&self.buffers);
        parts.map(|((length, peer), buffer)| (&buffer[..*length], *peer))
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
}

/// Replies that wait to leave.
#[derive(Default)]
pub(crate) struct Replies {
    bytes: Vec<u8>,
    /// To whom, and where in `bytes`.
    parts: Vec<(SocketAddr, std::ops::Range<usize>)>,
    /// One asker's replies of one length, one after the other.
    together: Vec<u8>,
    /// The kernel does not cut datagrams here.
    one_by_one: bool,
}

impl Replies {
    /// Adds what `write` appends; nothing if it says so.
    pub(crate) fn add(
        &mut self,
        peer: SocketAddr,
        write: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> bool {
        let start = self.bytes.len();
        let written = write(&mut self.bytes);
        if written {
            self.parts.push((peer, start..self.bytes.len()));
        } else {
            self.bytes.truncate(start);
        }
        written
    }

    /// Sends everything. What the kernel does not take is lost, as datagrams may be: who asked asks again.
    pub(crate) async fn send(&mut self, socket: &UdpSocket) {
        let mut parts = std::mem::take(&mut self.parts);
        parts.sort_by_key(|(peer, range)| (*peer, std::cmp::Reverse(range.len())));
        for alike in parts.chunk_by(|(a, x), (b, y)| a == b && x.len() == y.len()) {
            self.send_alike(socket, alike).await;
        }
        parts.clear();
        self.parts = parts;
        self.bytes.clear();
    }

    async fn send_alike(
        &mut self,
        socket: &UdpSocket,
        alike: &[(SocketAddr, std::ops::Range<usize>)],
    ) {
        let Some((peer, first)) = alike.first() else { return };
        if alike.len() > 1 && !self.one_by_one {
            self.together.clear();
            for (_, range) in alike {
                self.together.extend_from_slice(&self.bytes[range.clone()]);
            }
            let length = u16::try_from(first.len()).unwrap_or(u16::MAX);
            match segmented(socket, *peer, &self.together, length) {
                Err(Errno::EINVAL | Errno::EIO | Errno::EOPNOTSUPP | Errno::ENOPROTOOPT) => {
                    self.one_by_one = true;
                }
                _ => return,
            }
        }
        for (peer, range) in alike {
            let _ = socket.send_to(&self.bytes[range.clone()], peer).await;
        }
    }
}

fn segmented(socket: &UdpSocket, peer: SocketAddr, bytes: &[u8], length: u16) -> Result<(), Errno> {
    let controls = [ControlMessage::UdpGsoSegments(&length)];
    let (slices, to) = ([IoSlice::new(bytes)], SockaddrStorage::from(peer));
    sendmsg(socket.as_raw_fd(), &slices, &controls, MsgFlags::MSG_DONTWAIT, Some(&to)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn replies_reach_those_who_asked_whole_and_apart() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (one, other) = (
            UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            UdpSocket::bind("127.0.0.1:0").await.unwrap(),
        );
        for client in [&one, &other] {
            client.connect(server.local_addr().unwrap()).await.unwrap();
        }
        let asked = ["aa", "bb", "cccc", "dd"];
        for question in asked {
            one.send(question.as_bytes()).await.unwrap();
        }
        other.send(b"ee").await.unwrap();
        let (mut received, mut replies, mut seen) = (Received::new(), Replies::default(), 0);
        while seen < asked.len() + 1 {
            received.receive(&server).await.unwrap();
            for (packet, peer) in received.iter() {
                seen += 1;
                assert!(replies.add(peer, |out| {
                    out.extend_from_slice(packet);
                    true
                }));
                assert!(!replies.add(peer, |out| {
                    out.extend_from_slice(b"never");
                    false
                }));
            }
            replies.send(&server).await;
        }
        let mut answered = Vec::new();
        for _ in asked {
            answered.push(read(&one).await);
        }
        answered.sort();
        assert_eq!(answered, ["aa", "bb", "cccc", "dd"]);
        assert_eq!(read(&other).await, "ee");
    }

    async fn read(socket: &UdpSocket) -> String {
        let mut buffer = [0; 100];
        let read = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer));
        let length = read.await.unwrap().unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}
