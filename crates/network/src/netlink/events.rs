//! What others change in nftables, as it happens.
//!
//! Knows the notifications of nf_tables and in which table something changed; not whether that
//! matters.

use nix::{libc, sys::socket::SockProtocol};

use super::{
    NetlinkError, attribute,
    listener::{Listener, Told},
    message,
};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
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
    listener: Listener,
    table: Vec<u8>,
}

impl Events {
    /// Begins to listen in the calling thread's network namespace.
    pub(crate) fn listen(table: &str) -> Result<Self, NetlinkError> {
        let listener = Listener::open(SockProtocol::NetlinkNetFilter, 1 << (GROUP - 1))
            .map_err(|errno| NetlinkError::new("listen to nftables", errno))?;
        let mut name = table.as_bytes().to_vec();
        name.push(0);
        Ok(Self { listener, table: name })
    }

    /// Waits for notifications; those caused by the socket with address `own` are left out.
    pub(crate) async fn next(&mut self, own: u32) -> Vec<Event> {
        let mut events = Vec::new();
        while events.is_empty() {
            if self.listener.next(|told| self.take(told, own, &mut events)).await.is_err() {
                return vec![Event::Lost];
            }
        }
        events
    }

    /// Takes in what has happened so far.
    pub(crate) fn so_far(&self, own: u32) -> Vec<Event> {
        let mut events = Vec::new();
        if self.listener.so_far(|told| self.take(told, own, &mut events)).is_err() {
            events.push(Event::Lost);
        }
        events
    }

    /// Notes what concerns the table, each kind of event once.
    fn take(&self, told: Told<'_>, own: u32, events: &mut Vec<Event>) {
        let event = match told {
            Told::Message(message) if message.sender == own => None,
            Told::Message(message) => event(message, &self.table),
            Told::Lost => Some(Event::Lost),
        };
        events.extend(event.filter(|event| !events.contains(event)));
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
