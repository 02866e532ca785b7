//! HTTP/1.1 as cheaply as a load generator can have it: requests are bytes that exist already, answers are counted and
//! not kept. It shares the processors with what it measures, so what it costs is missing there.
//!
//! One request at a time on one connection. Knows lengths and chunks, nothing of what is in a body.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Head of an answer at most, in bytes.
const LONGEST_HEAD: usize = 16 << 10;
/// Read at once, in bytes.
const BUFFER: usize = 64 << 10;

/// A request as it goes over the wire.
pub(crate) fn request(method: &str, path: &str, body: &str) -> Bytes {
    request_for(method, path, "application/json", body)
}

/// A request for an answer in one encoding.
pub(crate) fn request_for(method: &str, path: &str, accept: &str, body: &str) -> Bytes {
    message(method, path, accept, "application/json", body)
}

/// A patch whose content type says of which kind it is.
pub(crate) fn patch(path: &str, content_type: &str, body: &str) -> Bytes {
    message("PATCH", path, "application/json", content_type, body)
}

fn message(method: &str, path: &str, accept: &str, content_type: &str, body: &str) -> Bytes {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: kubernetes\r\naccept: {accept}\r\n");
    if !body.is_empty() {
        text += &format!("content-type: {content_type}\r\ncontent-length: {}\r\n", body.len());
    }
    text += "\r\n";
    text += body;
    text.into()
}

/// A connection, kept alive.
pub(crate) struct Wire {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
    /// What of the buffer has been read from the stream and not been looked at.
    unread: std::ops::Range<usize>,
}

impl Wire {
    pub(crate) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self { stream, buffer: vec![0; BUFFER], unread: 0..0 }
    }

    /// Sends a request and counts the bytes of the answer's body. Anything but success is an error.
    pub(crate) async fn count(&mut self, request: &[u8]) -> anyhow::Result<u64> {
        self.stream.write_all(request).await.context("send a request")?;
        self.stream.flush().await.context("send a request")?;
        match self.head().await? {
            Length::Known(length) => self.skip(length).await.map(|()| length),
            Length::Chunks => self.chunks().await,
        }
    }

    /// Sends a request whose answer comes bit by bit, for [`Self::chunk`] to read.
    pub(crate) async fn open(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).await.context("send a request")?;
        self.stream.flush().await.context("send a request")?;
        ensure!(self.head().await? == Length::Chunks, "an answer comes at once");
        Ok(())
    }

    /// The next piece of an answer that comes bit by bit.
    pub(crate) async fn chunk(&mut self) -> anyhow::Result<&[u8]> {
        loop {
            match httparse::parse_chunk_size(&self.buffer[self.unread.clone()]) {
                Ok(httparse::Status::Complete((consumed, size))) => {
                    let (start, size) = (self.unread.start + consumed, usize::try_from(size)?);
                    ensure!(size > 0 && size < BUFFER / 2, "a piece of {size} bytes");
                    if self.unread.end >= start + size + 2 {
                        self.unread.start = start + size + 2;
                        return Ok(&self.buffer[start..start + size]);
                    }
                }
                Ok(httparse::Status::Partial) => {}
                Err(_) => bail!("a chunk of an answer has no size"),
            }
            self.more().await?;
        }
    }

    async fn head(&mut self) -> anyhow::Result<Length> {
        loop {
            if let Some((consumed, length)) = parse_head(&self.buffer[self.unread.clone()])? {
                self.unread.start += consumed;
                return Ok(length);
            }
            ensure!(self.unread.len() < LONGEST_HEAD, "the head of an answer does not end");
            self.more().await?;
        }
    }

    async fn chunks(&mut self) -> anyhow::Result<u64> {
        let mut bytes = 0;
        loop {
            match httparse::parse_chunk_size(&self.buffer[self.unread.clone()]) {
                Ok(httparse::Status::Complete((consumed, size))) => {
                    self.unread.start += consumed;
                    // The line break after a chunk, or after the last one.
                    self.skip(size + 2).await?;
                    if size == 0 {
                        return Ok(bytes);
                    }
                    bytes += size;
                }
                Ok(httparse::Status::Partial) => self.more().await?,
                Err(_) => bail!("a chunk of an answer has no size"),
            }
        }
    }

    async fn skip(&mut self, mut length: u64) -> anyhow::Result<()> {
        loop {
            let here = self.unread.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            self.unread.start += here;
            length -= here as u64;
            if length == 0 {
                return Ok(());
            }
            self.more().await?;
        }
    }

    /// Reads what has come, behind what is unread.
    async fn more(&mut self) -> anyhow::Result<()> {
        let Self { stream, buffer, unread } = self;
        buffer.copy_within(unread.clone(), 0);
        *unread = 0..unread.len();
        let read = stream.read(&mut buffer[unread.end..]).await.context("read an answer")?;
        ensure!(read > 0, "the server closed the connection");
        unread.end += read;
        Ok(())
    }
}

/// How long a body is.
#[derive(Debug, PartialEq)]
enum Length {
    Known(u64),
    Chunks,
}

/// The length of an answer's head and of its body; `None` if the head goes on.
fn parse_head(bytes: &[u8]) -> anyhow::Result<Option<(usize, Length)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(consumed) = response.parse(bytes).context("an answer")? else {
        return Ok(None);
    };
    let code = response.code.unwrap_or_default();
    ensure!((200..300).contains(&code), "the server answered {code}");
    for header in response.headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value)?;
            return Ok(Some((consumed, Length::Known(text.parse()?))));
        }
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(Some((consumed, Length::Chunks)));
        }
    }
    bail!("an answer does not say how long it is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_say_how_long_bodies_are() {
        let head = |text: &str| parse_head(text.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(head("HTTP/1.1 200 OK\r\nContent-Le"), Ok(None));
        assert_eq!(
            head("HTTP/1.1 201 Created\r\nContent-Length: 7\r\n\r\n{"),
            Ok(Some((43, Length::Known(7))))
        );
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(head(chunked), Ok(Some((chunked.len(), Length::Chunks))));
        assert!(head("HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(head("HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
