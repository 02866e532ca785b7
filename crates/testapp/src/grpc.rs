//! A gRPC server that knows one answer: the health check's (`grpc.health.v1`). It reads no
//! header and no message, only the frames of HTTP/2 (RFC 9113) needed to answer.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::tools;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const MAX_FRAME: usize = 16 * 1024;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `grpc PORT [--not-serving]`: one connection after the other.
pub(crate) fn command(arguments: &[String]) -> Result<u8, String> {
    let listener = tools::listen(tools::port(arguments)?)?;
    let serving = !arguments.iter().any(|one| one == "--not-serving");
    for stream in listener.incoming().flatten() {
        // A client that goes away is no concern of the server's.
        let _ = converse(&stream, serving);
    }
    Ok(0)
}

fn converse(stream: &TcpStream, serving: bool) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_nodelay(true)?;
    let mut wire = stream;
    let mut preface = [0; PREFACE.len()];
    wire.read_exact(&mut preface)?;
    if &preface != PREFACE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    frame(wire, SETTINGS, 0, 0, &[])?;
    loop {
        let mut head = [0; 9];
        wire.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if length > MAX_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; length];
        wire.read_exact(&mut payload)?;
        let (kind, flags) = (head[3], head[4]);
        let stream_id = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        match kind {
            SETTINGS if flags & ACK == 0 => frame(wire, SETTINGS, ACK, 0, &[])?,
            PING if flags & ACK == 0 => frame(wire, PING, ACK, 0, &payload)?,
            HEADERS | DATA if flags & END_STREAM != 0 => answer(wire, stream_id, serving)?,
            GOAWAY => return Ok(()),
            _ => {}
        }
    }
}

fn answer(wire: &TcpStream, stream: u32, serving: bool) -> io::Result<()> {
    // `:status: 200` is entry 8 of the static table.
    let mut headers = vec![0x88];
    literal(&mut headers, "content-type", "application/grpc");
    frame(wire, HEADERS, END_HEADERS, stream, &headers)?;
    // An uncompressed message of two bytes: field 1, SERVING (1) or NOT_SERVING (2).
    let message = [0, 0, 0, 0, 2, 8, if serving { 1 } else { 2 }];
    frame(wire, DATA, 0, stream, &message)?;
    let mut trailers = Vec::new();
    literal(&mut trailers, "grpc-status", "0");
    frame(wire, HEADERS, END_HEADERS | END_STREAM, stream, &trailers)
}

/// A header field without indexing, not compressed (RFC 7541, 6.2.2).
fn literal(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    for text in [name, value] {
        out.push(u8::try_from(text.len()).unwrap_or(0));
        out.extend(text.bytes());
    }
}

fn frame(mut wire: impl Write, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    wire.write_all(&out)
}
