//! nftables over netlink: whether a table exists, and elements of its maps and sets, which are
//! many and change often. Rules and declarations are `nft`'s.
//!
//! Knows linux/netfilter/nf_tables.h and nothing of what the elements mean.

use std::{collections::BTreeSet, os::fd::AsRawFd};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{MsgFlags, send, setsockopt, sockopt},
};

use super::{Message, NetlinkError, Reply, Socket, attribute, attributes};

const fn kind(message: i32) -> u16 {
    ((libc::NFNL_SUBSYS_NFTABLES << 8) | message) as u16
}

const GET_CHAIN: u16 = kind(libc::NFT_MSG_GETCHAIN);
const GET_RULE: u16 = kind(libc::NFT_MSG_GETRULE);
const GET_SET: u16 = kind(libc::NFT_MSG_GETSET);
const GET_TABLE: u16 = kind(libc::NFT_MSG_GETTABLE);
const NEW_ELEMENTS: u16 = kind(libc::NFT_MSG_NEWSETELEM);
const GET_ELEMENTS: u16 = kind(libc::NFT_MSG_GETSETELEM);
const DELETE_ELEMENTS: u16 = kind(libc::NFT_MSG_DELSETELEM);
const BATCH_BEGIN: u16 = libc::NFNL_MSG_BATCH_BEGIN as u16;
const BATCH_END: u16 = libc::NFNL_MSG_BATCH_END as u16;

/// `NFTA_TABLE_NAME`.
const TABLE_NAME: u16 = 1;
/// `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE` and `NFTA_SET_TABLE`.
const OF_TABLE: u16 = 1;
/// `NFTA_CHAIN_NAME`.
const CHAIN_NAME: u16 = 3;
/// `NFTA_CHAIN_HOOK`, in it `NFTA_HOOK_HOOKNUM`; and `NFTA_CHAIN_POLICY`.
const CHAIN_HOOK: u16 = 4;
const HOOK_NUMBER: u16 = 1;
const CHAIN_POLICY: u16 = 5;
/// `NFTA_RULE_CHAIN` and `NFTA_RULE_EXPRESSIONS`.
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
/// `NFTA_SET_NAME` and `NFTA_SET_FLAGS`.
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
/// `NFTA_SET_ELEM_LIST_TABLE`, `_SET` and `_ELEMENTS`.
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
/// `NFTA_LIST_ELEM`.
const LIST_ITEM: u16 = 1;
/// `NFTA_SET_ELEM_KEY`, `_DATA` and `_KEY_END`.
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_KEY_END: u16 = 10;
/// `NFTA_DATA_VALUE` and `_VERDICT`.
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
/// `NFTA_VERDICT_CODE` and `_CHAIN`.
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// The families of tables that are used: `NFPROTO_INET` and `NFPROTO_BRIDGE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableFamily {
    Inet = 1,
    Bridge = 7,
}
const FAMILY_INET: u8 = TableFamily::Inet as u8;
const FAMILY_BRIDGE: u8 = TableFamily::Bridge as u8;
/// Elements in one message: attributes are at most 64 KiB, an element about 200 bytes.
const ELEMENTS_A_MESSAGE: usize = 256;
/// The room that a request for many elements takes in a socket's queue, by its length.
const ROOM_FACTOR: usize = 2;

/// What a map's key leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    /// Nothing: the key is a set's.
    Nothing,
    /// A value of the map's type.
    Value(Vec<u8>),
    /// Where to go on: a code of `enum nft_verdicts` or `NF_DROP`, and a chain.
    Verdict { code: i32, chain: String },
}

/// `NF_DROP`.
pub(crate) const DROP: i32 = libc::NF_DROP;
/// `NFT_JUMP`.
pub(crate) const JUMP: i32 = -3;
/// `NFT_GOTO`.
pub(crate) const GOTO: i32 = -4;

/// One element of a map or set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) key: Vec<u8>,
    /// The last key of a range.
    pub(crate) end: Option<Vec<u8>>,
    pub(crate) data: Data,
}

/// Whether table `inet name` exists.
pub(crate) fn table_exists(name: &str, family: TableFamily) -> Result<bool, NetlinkError> {
    let request = request_of(family as u8, GET_TABLE, 0).string(TABLE_NAME, name);
    match Socket::netfilter()?.query("look up the table", request) {
        Ok(_) => Ok(true),
        // A kernel without the family has no table of it.
        Err(NetlinkError { errno: Errno::ENOENT | Errno::EAFNOSUPPORT, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the kernel has nftables, and we may use them.
pub fn kernel_has_nftables() -> Result<(), NetlinkError> {
    table_exists("skiff", TableFamily::Inet).map(drop)
}

/// The chains, of whatever tables, that drop what is forwarded unless a rule accepts it: family,
/// table and name of each.
pub(crate) fn forward_drops() -> Result<Vec<[String; 3]>, NetlinkError> {
    let request = request_of(libc::AF_UNSPEC as u8, GET_CHAIN, 0);
    let replies = Socket::netfilter()?.dump("list chains", request)?;
    Ok(replies.iter().filter_map(|reply| forward_drop(&reply.body)).collect())
}

fn forward_drop(body: &[u8]) -> Option<[String; 3]> {
    let family = match i32::from(*body.first()?) {
        libc::NFPROTO_INET => "inet",
        libc::NFPROTO_IPV4 => "ip",
        libc::NFPROTO_IPV6 => "ip6",
        _ => return None,
    };
    let body = body.get(4..)?;
    let number = |bytes: &[u8]| Some(i32::from_be_bytes(bytes.try_into().ok()?));
    let hook = number(attribute(attribute(body, CHAIN_HOOK)?, HOOK_NUMBER)?)?;
    let policy = number(attribute(body, CHAIN_POLICY)?)?;
    if hook != libc::NF_INET_FORWARD || policy != libc::NF_DROP {
        return None;
    }
    let text = |bytes| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let [table, name] = [attribute(body, OF_TABLE)?, attribute(body, CHAIN_NAME)?].map(text);
    Some([family.to_owned(), table, name])
}

/// A table without what its sets and maps hold.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) chains: BTreeSet<String>,
    pub(crate) sets: BTreeSet<String>,
    pub(crate) maps: BTreeSet<String>,
    /// Chains and what their rules do, in the kernel's words and order.
    rules: Vec<(String, Vec<u8>)>,
}

/// The table's frame; `None` if there is no such table. (`nft` lists a table only with all its
/// elements, even where it shows none.)
pub(crate) fn frame(socket: &mut Socket, table: &str) -> Result<Option<Frame>, NetlinkError> {
    if !table_exists(table, TableFamily::Inet)? {
        return Ok(None);
    }
    let mut frame = Frame::default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let mut each = |kind, take: &mut dyn FnMut(&mut Frame, &[u8]) -> Option<()>| {
        for reply in socket.dump("list a table", request(kind, 0).string(OF_TABLE, table))? {
            let body = reply.body.get(4..).unwrap_or_default();
            if attribute(body, OF_TABLE).is_some_and(|name| text(name) == table) {
                // What has no name is none of ours.
                let _ = take(&mut frame, body);
            }
        }
        Ok(())
    };
    each(GET_CHAIN, &mut |frame, body| {
        frame.chains.insert(text(attribute(body, CHAIN_NAME)?));
        Some(())
    })?;
    each(GET_SET, &mut |frame, body| {
        let flags = attribute(body, SET_FLAGS).and_then(|flags| flags.try_into().ok());
        let flags = flags.map_or(0, u32::from_be_bytes);
        let name = text(attribute(body, SET_NAME)?);
        match (flags & libc::NFT_SET_ANONYMOUS as u32, flags & libc::NFT_SET_MAP as u32) {
            (0, 0) => drop(frame.sets.insert(name)),
            (0, _) => drop(frame.maps.insert(name)),
            _ => {}
        }
        Some(())
    })?;
    each(GET_RULE, &mut |frame, body| {
        let expressions = attribute(body, RULE_EXPRESSIONS).unwrap_or_default();
        frame.rules.push((text(attribute(body, RULE_CHAIN)?), expressions.to_vec()));
        Some(())
    })?;
    Ok(Some(frame))
}

/// What a set or map of the table holds.
pub(crate) fn elements(
    socket: &mut Socket,
    table: &str,
    set: &str,
) -> Result<Vec<Element>, NetlinkError> {
    let request = request(GET_ELEMENTS, 0).string(LIST_TABLE, table).string(LIST_SET, set);
    let replies = socket.dump("list elements", request)?;
    Ok(replies.iter().flat_map(parse).collect())
}

/// Changes of elements that happen together or not at all.
#[derive(Debug)]
pub(crate) struct Transaction {
    family: u8,
    table: String,
    messages: Vec<Message>,
}

impl Transaction {
    pub(crate) fn new(table: &str) -> Self {
        Self { family: FAMILY_INET, table: table.to_owned(), messages: Vec::new() }
    }

    /// What follows is in the table of that name of family `bridge`.
    pub(crate) fn of_bridge(&mut self) {
        self.family = FAMILY_BRIDGE;
    }

    /// Adds elements to a set.
    pub(crate) fn add(&mut self, set: &str, elements: &[Element]) {
        self.push(NEW_ELEMENTS, libc::NLM_F_CREATE as u16, set, elements);
    }

    /// Removes elements, which must be there, from a set.
    pub(crate) fn delete(&mut self, set: &str, elements: &[Element]) {
        self.push(DELETE_ELEMENTS, 0, set, elements);
    }

    fn push(&mut self, kind: u16, flags: u16, set: &str, elements: &[Element]) {
        for some in elements.chunks(ELEMENTS_A_MESSAGE) {
            let message = request_of(self.family, kind, flags).string(LIST_TABLE, &self.table);
            let message = message.string(LIST_SET, set).nested(LIST_ELEMENTS, |list| {
                some.iter().fold(list, |list, one| {
                    list.nested(LIST_ITEM, |item| write(item, one, kind == NEW_ELEMENTS))
                })
            });
            self.messages.push(message);
        }
    }

    /// Makes the changes.
    pub(crate) fn commit(self, socket: &mut Socket) -> Result<(), NetlinkError> {
        let what = "change elements";
        let count = self.messages.len();
        if count == 0 {
            return Ok(());
        }
        let mark = |kind| {
            let subsystem = (libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes();
            Message::new(kind, 0).fixed(&[libc::AF_UNSPEC as u8, 0, subsystem[0], subsystem[1]])
        };
        let request_flag = libc::NLM_F_REQUEST as u16;
        let first = socket.next_sequence();
        let mut bytes = mark(BATCH_BEGIN).finish(first, request_flag);
        let mut last = first;
        for (index, message) in self.messages.into_iter().enumerate() {
            last = socket.next_sequence();
            // One answer is enough; failures are told in any case.
            let ack = if index + 1 == count { libc::NLM_F_ACK as u16 } else { 0 };
            bytes.extend(message.finish(last, request_flag | ack));
        }
        bytes.extend(mark(BATCH_END).finish(socket.next_sequence(), request_flag));
        // Only who may change nftables may have so large a request.
        let room = bytes.len().saturating_mul(ROOM_FACTOR).max(64 * 1024);
        let _ = setsockopt(&socket.fd, sockopt::SndBufForce, &room);
        send(socket.fd.as_raw_fd(), &bytes, MsgFlags::empty())
            .map_err(|errno| NetlinkError::new(what, errno))?;
        let outcome = socket.await_answer(first, last);
        outcome.map_err(|errno| NetlinkError::new(what, errno))
    }
}

fn request(kind: u16, flags: u16) -> Message {
    request_of(FAMILY_INET, kind, flags)
}

fn request_of(family: u8, kind: u16, flags: u16) -> Message {
    Message::new(kind, flags).fixed(&[family, 0, 0, 0])
}

fn write(item: Message, element: &Element, with_data: bool) -> Message {
    let mut item = item.nested(ELEMENT_KEY, |key| key.attribute(DATA_VALUE, &element.key));
    if let Some(end) = &element.end {
        item = item.nested(ELEMENT_KEY_END, |key| key.attribute(DATA_VALUE, end));
    }
    match &element.data {
        Data::Value(value) if with_data => {
            item.nested(ELEMENT_DATA, |data| data.attribute(DATA_VALUE, value))
        }
        Data::Verdict { code, chain } if with_data => item.nested(ELEMENT_DATA, |data| {
            data.nested(DATA_VERDICT, |verdict| {
                let verdict = verdict.attribute(VERDICT_CODE, &code.to_be_bytes());
                if chain.is_empty() { verdict } else { verdict.string(VERDICT_CHAIN, chain) }
            })
        }),
        _ => item,
    }
}

/// The elements of one message of a dump.
fn parse(reply: &Reply) -> Vec<Element> {
    let rest = reply.body.get(4..).unwrap_or_default();
    let Some(list) = attribute(rest, LIST_ELEMENTS) else { return Vec::new() };
    attributes(list).filter_map(|(_, item)| parse_element(item)).collect()
}

fn parse_element(item: &[u8]) -> Option<Element> {
    let key = |kind| Some(attribute(attribute(item, kind)?, DATA_VALUE)?.to_vec());
    let data = match attribute(item, ELEMENT_DATA) {
        None => Data::Nothing,
        Some(data) => match (attribute(data, DATA_VALUE), attribute(data, DATA_VERDICT)) {
            (Some(value), _) => Data::Value(value.to_vec()),
            (None, verdict) => {
                let verdict = verdict?;
                let code = i32::from_be_bytes(attribute(verdict, VERDICT_CODE)?.try_into().ok()?);
                let chain = attribute(verdict, VERDICT_CHAIN).unwrap_or_default();
                let chain = String::from_utf8_lossy(chain).trim_end_matches('\0').to_owned();
                Data::Verdict { code, chain }
            }
        },
    };
    Some(Element { key: key(ELEMENT_KEY)?, end: key(ELEMENT_KEY_END), data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_that_drop_what_is_forwarded_are_found() {
        let chain = |family: i32, hook: i32, policy: i32| {
            let number = |value: i32| value.to_be_bytes();
            let message = request_of(family as u8, GET_CHAIN, 0)
                .string(OF_TABLE, "filter")
                .string(CHAIN_NAME, "FORWARD")
                .nested(CHAIN_HOOK, |hooked| hooked.attribute(HOOK_NUMBER, &number(hook)))
                .attribute(CHAIN_POLICY, &number(policy));
            let replies = super::super::message::split(&message.finish(1, 0));
            forward_drop(&replies[0].body).map(|names| names.join(" "))
        };
        let (v4, forward, drop) = (libc::NFPROTO_IPV4, libc::NF_INET_FORWARD, libc::NF_DROP);
        assert_eq!(chain(v4, forward, drop).as_deref(), Some("ip filter FORWARD"));
        assert_eq!(chain(v4, forward, libc::NF_ACCEPT), None);
        assert_eq!(chain(v4, libc::NF_INET_LOCAL_IN, drop), None);
        assert_eq!(chain(libc::NFPROTO_BRIDGE, forward, drop), None);
    }

    #[test]
    fn elements_are_read_as_they_are_written() {
        let all = [
            Element { key: vec![1, 2, 3, 4], end: None, data: Data::Nothing },
            Element { key: vec![1, 2, 3, 4], end: Some(vec![1, 2, 3, 9]), data: Data::Nothing },
            Element { key: vec![1; 8], end: None, data: Data::Value(vec![9; 20]) },
            Element {
                key: vec![1; 8],
                end: None,
                data: Data::Verdict { code: GOTO, chain: "refuse".to_owned() },
            },
            Element {
                key: vec![1; 8],
                end: None,
                data: Data::Verdict { code: DROP, chain: String::new() },
            },
        ];
        let mut transaction = Transaction::new("t");
        transaction.add("s", &all);
        let bytes = transaction.messages.remove(0).finish(1, 0);
        let replies = super::super::message::split(&bytes);
        assert_eq!(parse(&replies[0]), all);
    }
}
