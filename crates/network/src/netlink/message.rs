//! Netlink messages as bytes: headers, fixed parts and attributes, written and read.
//!
//! Knows the framing of netlink(7) and nothing of what any message means.

/// `NLMSG_ALIGNTO` and `NLA_ALIGNTO`.
const ALIGN: usize = 4;
/// Length of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// Length of `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;
/// Bits of an attribute type that are flags (nested, byte order) and not the type.
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;

/// One message being written. The sequence number is filled in when it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    buffer: Vec<u8>,
}

impl Message {
    /// A message of type `kind` with `flags` (`NLM_F_*`) and no body yet.
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut buffer = vec![0; HEADER];
        buffer[4..6].copy_from_slice(&kind.to_ne_bytes());
        buffer[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self { buffer }
    }

    /// Appends a fixed part.
    pub(crate) fn fixed(mut self, bytes: &[u8]) -> Self {
        self.buffer.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends one attribute.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(value);
        self.pad();
        self
    }

    /// Appends a NUL-terminated string.
    pub(crate) fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Appends a 32-bit number in host byte order.
    pub(crate) fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Appends an attribute that holds what `fill` appends.
    pub(crate) fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; ATTRIBUTE_HEADER]);
        let mut filled = fill(self);
        let length = u16::try_from(filled.buffer.len() - start).unwrap_or(u16::MAX);
        filled.buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled.buffer[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        filled
    }

    /// The finished message under sequence number `sequence`, with `extra` flags added.
    pub(crate) fn finish(mut self, sequence: u32, extra: u16) -> Vec<u8> {
        let length = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
        self.buffer[0..4].copy_from_slice(&length.to_ne_bytes());
        let flags = u16::from_ne_bytes([self.buffer[6], self.buffer[7]]) | extra;
        self.buffer[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.buffer[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.buffer
    }

    fn pad(&mut self) {
        while !self.buffer.len().is_multiple_of(ALIGN) {
            self.buffer.push(0);
        }
    }
}

/// One message received.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    /// Address of the socket that caused it; the kernel's own is 0.
    pub(crate) sender: u32,
    pub(crate) body: Vec<u8>,
}

/// Splits a datagram into its messages; stops at the first malformed one.
pub(crate) fn split(mut datagram: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Some(header) = datagram.first_chunk::<HEADER>() {
        let length = u32_at(header, 0) as usize;
        if length < HEADER || length > datagram.len() {
            break;
        }
        replies.push(Reply {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: u32_at(header, 8),
            sender: u32_at(header, 12),
            body: datagram[HEADER..length].to_vec(),
        });
        datagram = &datagram[length.next_multiple_of(ALIGN).min(datagram.len())..];
    }
    replies
}

/// The attributes in `bytes`, flags cut from their types; stops at the first malformed one.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<ATTRIBUTE_HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & ATTRIBUTE_TYPE_MASK;
        if length < ATTRIBUTE_HEADER || length > bytes.len() {
            return None;
        }
        let value = &bytes[ATTRIBUTE_HEADER..length];
        bytes = &bytes[length.next_multiple_of(ALIGN).min(bytes.len())..];
        Some((kind, value))
    })
}

/// The first attribute of type `wanted` in `bytes`.
pub(crate) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// A 32-bit number in host byte order at `offset`; 0 where there is none.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes
        .get(offset..offset + 4)
        .and_then(|part| part.try_into().ok())
        .map_or(0, u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = Message::new(16, 1)
            .fixed(&[1, 2, 3, 4])
            .string(3, "eth0")
            .nested(18, |inner| inner.string(1, "veth").number(2, 7))
            .finish(9, 4);
        let replies = split(&bytes);
        assert_eq!(replies.len(), 1);
        assert_eq!((replies[0].kind, replies[0].sequence), (16, 9));
        let body = &replies[0].body[4..];
        assert_eq!(attribute(body, 3), Some(&b"eth0\0"[..]));
        let inner = attribute(body, 18).expect("nested");
        assert_eq!(attribute(inner, 1), Some(&b"veth\0"[..]));
        assert_eq!(u32_at(attribute(inner, 2).expect("number"), 0), 7);
    }

    #[test]
    fn malformed_input_ends_quietly() {
        assert!(split(&[1, 0, 0, 0]).is_empty());
        let mut bytes = Message::new(1, 0).finish(1, 0);
        bytes[0] = 200;
        assert!(split(&bytes).is_empty());
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[40, 0, 1, 0, 9]).count(), 0);
    }
}
