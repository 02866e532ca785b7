//! Frames to bytes and back (SPDY/3, section 2.2 and 2.6). Header blocks stay compressed here.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::StreamError;

/// Bytes of a frame's head.
pub(super) const HEAD: usize = 8;
/// The longest payload that is read, in bytes.
const LARGEST_PAYLOAD: usize = 4 << 20;

const VERSION: u16 = 3;
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;

/// A frame. What is not listed (settings, window updates, …) changes nothing for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Data { stream: u32, fin: bool, data: Bytes },
    SynStream { stream: u32, fin: bool, block: Bytes },
    SynReply { stream: u32, fin: bool, block: Bytes },
    Reset { stream: u32, status: u32 },
    Ping { id: u32 },
    GoAway { last: u32 },
    Other,
}

/// The length of the payload that follows `head`.
pub(super) fn payload_length(head: &[u8; HEAD]) -> Result<usize, StreamError> {
    let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    if length > LARGEST_PAYLOAD {
        Err(StreamError::Protocol("frame too large"))
    } else {
        Ok(length)
    }
}

pub(super) fn parse(head: &[u8; HEAD], mut payload: Bytes) -> Result<Frame, StreamError> {
    const SHORT: StreamError = StreamError::Protocol("frame too short");
    let fin = head[4] & FIN != 0;
    let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    if word >> 31 == 0 {
        return Ok(Frame::Data { stream: word, fin, data: payload });
    }
    if (word >> 16) as u16 & 0x7fff != VERSION {
        return Err(StreamError::Protocol("not SPDY/3"));
    }
    let number = |payload: &mut Bytes| payload.try_get_u32().map_err(|_| SHORT);
    Ok(match word as u16 {
        SYN_STREAM => {
            let stream = number(&mut payload)? & 0x7fff_ffff;
            // Associated stream, priority and slot say nothing that matters here.
            if payload.len() < 6 {
                return Err(SHORT);
            }
            Frame::SynStream { stream, fin, block: payload.split_off(6) }
        }
        SYN_REPLY => {
            Frame::SynReply { stream: number(&mut payload)? & 0x7fff_ffff, fin, block: payload }
        }
        RST_STREAM => Frame::Reset {
            stream: number(&mut payload)? & 0x7fff_ffff,
            status: number(&mut payload)?,
        },
        PING => Frame::Ping { id: number(&mut payload)? },
        GO_AWAY => Frame::GoAway { last: number(&mut payload)? },
        _ => Frame::Other,
    })
}

/// Appends the frame to `out`.
pub(super) fn write(frame: &Frame, out: &mut BytesMut) {
    match frame {
        Frame::Data { stream, fin, data } => {
            out.put_u32(*stream);
            flags_and_length(out, *fin, data.len());
            out.put_slice(data);
        }
        Frame::SynStream { stream, fin, block } => {
            control(out, SYN_STREAM, *fin, 10 + block.len());
            out.put_u32(*stream);
            out.put_u32(0);
            out.put_u16(0);
            out.put_slice(block);
        }
        Frame::SynReply { stream, fin, block } => {
            control(out, SYN_REPLY, *fin, 4 + block.len());
            out.put_u32(*stream);
            out.put_slice(block);
        }
        Frame::Reset { stream, status } => {
            control(out, RST_STREAM, false, 8);
            out.put_u32(*stream);
            out.put_u32(*status);
        }
        Frame::Ping { id } => {
            control(out, PING, false, 4);
            out.put_u32(*id);
        }
        Frame::GoAway { last } => {
            control(out, GO_AWAY, false, 8);
            out.put_u32(*last);
            out.put_u32(0);
        }
        Frame::Other => {}
    }
}

fn control(out: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    flags_and_length(out, fin, length);
}

fn flags_and_length(out: &mut BytesMut, fin: bool, length: usize) {
    out.put_u8(if fin { FIN } else { 0 });
    out.put_uint(length as u64, 3);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        let block = Bytes::from_static(b"block");
        for frame in [
            Frame::Data { stream: 7, fin: true, data: Bytes::from_static(b"hello") },
            Frame::SynStream { stream: 1, fin: false, block: block.clone() },
            Frame::SynReply { stream: 1, fin: true, block },
            Frame::Reset { stream: 3, status: 5 },
            Frame::Ping { id: 9 },
            Frame::GoAway { last: 11 },
        ] {
            let mut wire = BytesMut::new();
            write(&frame, &mut wire);
            let head: [u8; HEAD] = wire[..HEAD].try_into().unwrap();
            assert_eq!(payload_length(&head).unwrap(), wire.len() - HEAD);
            assert_eq!(parse(&head, wire.freeze().split_off(HEAD)).unwrap(), frame);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(payload_length(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]).is_err());
        assert!(parse(&[0x80, 2, 0, 1, 0, 0, 0, 0], Bytes::new()).is_err());
        assert!(parse(&[0x80, 3, 0, 1, 0, 0, 0, 2], Bytes::from_static(b"ab")).is_err());
        assert_eq!(parse(&[0x80, 3, 0, 4, 0, 0, 0, 0], Bytes::new()).unwrap(), Frame::Other);
    }
}
