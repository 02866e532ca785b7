//! Talking netlink to the kernel, synchronously: links, addresses, routes and conntrack.
//!
//! Owns framing, acknowledgements and time limits. Knows nothing of pods or Services. Everything
//! here is a handful of system calls that take microseconds; asynchronous callers use a blocking
//! thread where a dump may be long.

pub(crate) mod conntrack;
pub(crate) mod events;
pub(crate) mod ip;
mod listener;
mod message;
pub(crate) mod monitor;
pub(crate) mod nftables;
pub(crate) mod queue;
pub(crate) mod route;
pub(crate) mod vxlan;
pub(crate) mod wire;

use std::os::fd::{AsRawFd, OwnedFd};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind,
            getsockname, recv, send, setsockopt, socket, sockopt,
        },
        time::{TimeVal, TimeValLike},
    },
};

pub(crate) use message::{Message, Reply, attribute, attributes, u32_at};

/// No answer from the kernel takes longer unless something is very wrong.
const ANSWER_SECONDS: i64 = 5;
/// Kernel datagrams of dumps are at most 32 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Why a netlink request failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {errno}")]
pub struct NetlinkError {
    /// What was being done, for people.
    pub what: String,
    /// The kernel's answer.
    pub errno: Errno,
}

impl NetlinkError {
    fn new(what: impl Into<String>, errno: Errno) -> Self {
        Self { what: what.into(), errno }
    }
}

/// A netlink socket. Requests go out one datagram at a time and are waited for.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// A socket for links, addresses and routes of the calling thread's network namespace.
    pub(crate) fn route() -> Result<Self, NetlinkError> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// A socket for conntrack of the calling thread's network namespace.
    pub(crate) fn netfilter() -> Result<Self, NetlinkError> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    /// The address by which the kernel names this socket in notifications.
    pub(crate) fn address(&self) -> u32 {
        getsockname::<NetlinkAddr>(self.fd.as_raw_fd()).map_or(0, |address| address.pid())
    }

    fn open(protocol: SockProtocol) -> Result<Self, NetlinkError> {
        let opened = || {
            let fd =
                socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
            setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS))?;
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
            Ok(Self { fd, sequence: 0 })
        };
        opened().map_err(|errno| NetlinkError::new("open a netlink socket", errno))
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) fn call(&mut self, what: &str, message: Message) -> Result<(), NetlinkError> {
        self.exchange(message, nix::libc::NLM_F_ACK as u16)
            .map(drop)
            .map_err(|errno| NetlinkError::new(what, errno))
    }

    /// Like [`Socket::call`]; an answer of `ignored` counts as success.
    pub(crate) fn call_unless(
        &mut self,
        what: &str,
        ignored: &[Errno],
        message: Message,
    ) -> Result<(), NetlinkError> {
        match self.exchange(message, nix::libc::NLM_F_ACK as u16) {
            Ok(_) => Ok(()),
            Err(errno) if ignored.contains(&errno) => Ok(()),
            Err(errno) => Err(NetlinkError::new(what, errno)),
        }
    }

    /// Sends one request and returns what came before its acknowledgement.
    pub(crate) fn query(
        &mut self,
        what: &str,
        message: Message,
    ) -> Result<Vec<Reply>, NetlinkError> {
        self.exchange(message, nix::libc::NLM_F_ACK as u16)
            .map_err(|errno| NetlinkError::new(what, errno))
    }

    /// Sends a dump request and returns every entry.
    pub(crate) fn dump(
        &mut self,
        what: &str,
        message: Message,
    ) -> Result<Vec<Reply>, NetlinkError> {
        self.exchange(message, nix::libc::NLM_F_DUMP as u16)
            .map_err(|errno| NetlinkError::new(what, errno))
    }

    /// A number for the next message.
    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Receives messages until `take` has its answer.
    fn receive<T>(
        &mut self,
        mut take: impl FnMut(Reply) -> Option<Result<T, Errno>>,
    ) -> Result<T, Errno> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            let length = match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
                Err(errno) => return Err(errno),
            };
            for reply in message::split(&buffer[..length]) {
                if let Some(outcome) = take(reply) {
                    return outcome;
                }
            }
        }
    }

    /// Waits until the request with number `last` is acknowledged, or any since `first` failed.
    fn await_answer(&mut self, first: u32, last: u32) -> Result<(), Errno> {
        self.receive(|reply| {
            let ours = reply.sequence.wrapping_sub(first) <= last.wrapping_sub(first);
            if !ours || i32::from(reply.kind) != nix::libc::NLMSG_ERROR {
                return None;
            }
            match u32_at(&reply.body, 0).cast_signed() {
                0 if reply.sequence == last => Some(Ok(())),
                0 => None,
                code => Some(Err(Errno::from_raw(-code))),
            }
        })
    }

    fn exchange(&mut self, message: Message, extra: u16) -> Result<Vec<Reply>, Errno> {
        let sequence = self.next_sequence();
        let bytes = message.finish(sequence, nix::libc::NLM_F_REQUEST as u16 | extra);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut replies = Vec::new();
        self.receive(|reply| {
            if reply.sequence != sequence {
                return None;
            }
            match i32::from(reply.kind) {
                nix::libc::NLMSG_ERROR => match u32_at(&reply.body, 0).cast_signed() {
                    0 => Some(Ok(())),
                    code => Some(Err(Errno::from_raw(-code))),
                },
                nix::libc::NLMSG_DONE => Some(Ok(())),
                nix::libc::NLMSG_NOOP => None,
                _ => {
                    replies.push(reply);
                    None
                }
            }
        })?;
        Ok(replies)
    }
}
