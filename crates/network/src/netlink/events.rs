//! What others change in nftables, as it happens.
//!
//! Knows the notifications of nf_tables and in which table something changed; not whether that
//! matters.

use std::os::fd::{AsRawFd, RawFd};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv,
        setsockopt, socket, sockopt,
    },
};
use tokio::io::unix::AsyncFd;

use super::{NetlinkError, RECEIVE_BYTES, attribute, message};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// Room for notifications that wait to be read, in bytes.
const ROOM: usize = 4 << 20;
/// `NFTA_*_TABLE` is the first attribute of every object in a table, as is a table's own name.
const TABLE: u16 = 1;
/// `NFTA_SET_ELEM_LIST_SET`.
const SET: u16 = 2;

/// One notification that concerns the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Elements of this set came or went.
    Elements(String),
    /// The table or its rules, chains or sets changed.
    Frame,
    /// Notifications were lost.
    Lost,
}

/// Notifications about one table of family `inet`.
#[derive(Debug)]
pub(crate) struct Events {
    socket: AsyncFd<std::os::fd::OwnedFd>,
    table: Vec<u8>,
}

impl Events {
    #[expect(deprecated, reason = "the descriptor is owned here and lives as long as its watcher")]
    /// Begins to listen in the calling thread's network namespace.
    pub(crate) fn listen(table: &str) -> Result<Self, NetlinkError> {
        let open = || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let fd = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                flags,
                SockProtocol::NetlinkNetFilter,
            )?;
            let _ = setsockopt(&fd, sockopt::RcvBufForce, &ROOM);
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 1 << (GROUP - 1)))?;
            AsyncFd::new(fd)
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
        };
        let socket = open().map_err(|errno| NetlinkError::new("listen to nftables", errno))?;
        let mut name = table.as_bytes().to_vec();
        name.push(0);
        Ok(Self { socket, table: name })
    }

    /// Waits for notifications; those caused by the socket with address `own` are left out.
    pub(crate) async fn next(&mut self, own: u32) -> Vec<Event> {
        loop {
            let Ok(mut guard) = self.socket.readable().await else { return vec![Event::Lost] };
            let events = read(guard.get_inner().as_raw_fd(), &self.table, own);
            guard.clear_ready();
            if !events.is_empty() {
                return events;
            }
        }
    }

    /// Takes in what has happened so far.
    pub(crate) fn so_far(&self, own: u32) -> Vec<Event> {
        read(self.socket.get_ref().as_raw_fd(), &self.table, own)
    }
}

/// Reads until nothing waits.
fn read(fd: RawFd, table: &[u8], own: u32) -> Vec<Event> {
    let mut events = Vec::new();
    let mut buffer = vec![0; RECEIVE_BYTES];
    loop {
        match recv(fd, &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                let all = message::split(&buffer[..length]);
                let others = all.iter().filter(|one| one.sender != own);
                for event in others.filter_map(|one| event(one, table)) {
                    if !events.contains(&event) {
                        events.push(event);
                    }
                }
            }
            Err(Errno::EINTR) => {}
            Err(Errno::ENOBUFS) => events.push(Event::Lost),
            Err(_) => return events,
        }
    }
}

fn event(message: &message::Reply, table: &[u8]) -> Option<Event> {
    let subsystem = i32::from(message.kind >> 8);
    let kind = i32::from(message.kind & 0xff);
    let body = message.body.get(4..)?;
    let concerned = message.body.first() == Some(&(libc::NFPROTO_INET as u8))
        && attribute(body, TABLE) == Some(table);
    if subsystem != libc::NFNL_SUBSYS_NFTABLES || kind == libc::NFT_MSG_NEWGEN || !concerned {
        return None;
    }
    if matches!(kind, libc::NFT_MSG_NEWSETELEM | libc::NFT_MSG_DELSETELEM) {
        let set = String::from_utf8_lossy(attribute(body, SET)?);
        return Some(Event::Elements(set.trim_end_matches('\0').to_owned()));
    }
    Some(Event::Frame)
}
