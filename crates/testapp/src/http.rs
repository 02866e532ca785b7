//! As much HTTP/1.1 as the website needs: reading one bounded request, writing one answer.
//! Knows no page.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// Longest request head, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Longest request body, in bytes; bodies are read and forgotten.
const MAX_BODY: usize = 1024 * 1024;
/// Time a client has from the first byte of a request to its last.
const REQUEST_TIME: Duration = Duration::from_secs(20);

/// One request, its body already read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the client wants the connection kept.
    pub(crate) keep_alive: bool,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) code: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
}

/// Why there is no request.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The client closed or the connection idled out before a request began.
    Closed,
    /// The connection broke within a request.
    Broken,
    /// The request is not acceptable; the code says why.
    Bad(u16),
}

impl Response {
    pub(crate) fn text(code: u16, body: impl Into<String>) -> Self {
        let content_type = "text/plain; charset=utf-8";
        Self { code, content_type, body: body.into().into_bytes() }
    }

    pub(crate) fn json(body: String) -> Self {
        Self { code: 200, content_type: "application/json", body: body.into_bytes() }
    }
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The value of a query parameter; `""` if it has none.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

/// A connection's input: bytes already received that belong to the next request stay here.
pub(crate) struct Reader<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: Read + Write> Reader<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Reads the next request. `began` is called when its first byte is there.
    pub(crate) fn next(&mut self, began: impl Fn()) -> Result<Request, ReadError> {
        if self.buffer.is_empty() && self.fill().unwrap_or(0) == 0 {
            return Err(ReadError::Closed);
        }
        began();
        let deadline = Instant::now() + REQUEST_TIME;
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break self.buffer.drain(..end + 4).collect::<Vec<u8>>();
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(ReadError::Bad(431));
            }
            self.more(deadline)?;
        };
        let mut request = parse_head(&head).ok_or(ReadError::Bad(400))?;
        if request.header("transfer-encoding").is_some() {
            return Err(ReadError::Bad(411));
        }
        let length = match request.header("content-length") {
            None => 0,
            Some(text) => text.trim().parse().map_err(|_| ReadError::Bad(400))?,
        };
        if length > MAX_BODY {
            return Err(ReadError::Bad(413));
        }
        if length > self.buffer.len() && request.header("expect").is_some() {
            self.stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .map_err(|_| ReadError::Broken)?;
        }
        while self.buffer.len() < length {
            self.more(deadline)?;
        }
        request.body = self.buffer.drain(..length).collect();
        Ok(request)
    }

    fn more(&mut self, deadline: Instant) -> Result<(), ReadError> {
        match self.fill() {
            Ok(count) if count > 0 && Instant::now() < deadline => Ok(()),
            _ => Err(ReadError::Broken),
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 4096];
        let count = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    /// Whether bytes of a further request are already here.
    pub(crate) fn has_more(&self) -> bool {
        !self.buffer.is_empty()
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn parse_head(head: &[u8]) -> Option<Request> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target, version) = (first.next()?, first.next()?, first.next()?);
    if first.next().is_some() || !target.starts_with('/') || !version.starts_with("HTTP/1.") {
        return None;
    }
    let mut headers = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        if name.is_empty() || name.contains(' ') {
            return None;
        }
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Vec::new(),
        keep_alive: false,
    };
    let connection = request.header("connection").unwrap_or_default().to_ascii_lowercase();
    request.keep_alive = match version {
        "HTTP/1.0" => connection.contains("keep-alive"),
        _ => !connection.contains("close"),
    };
    Some(request)
}

/// Writes `response` in one piece.
pub(crate) fn write(
    mut stream: impl Write,
    response: &Response,
    head_only: bool,
    keep_alive: bool,
) -> io::Result<()> {
    let reason = match response.code {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    };
    let mut out = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n",
        response.code,
        response.content_type,
        response.body.len(),
        if keep_alive { "keep-alive" } else { "close" },
    )
    .into_bytes();
    if !head_only {
        out.extend_from_slice(&response.body);
    }
    stream.write_all(&out)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    struct Wire(Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Wire {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            // One byte at a time: nothing may depend on how requests are cut.
            let one = into.len().min(1);
            self.0.read(&mut into[..one])
        }
    }

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn reader(text: &str) -> Reader<Wire> {
        Reader::new(Wire(Cursor::new(text.as_bytes().to_vec()), Vec::new()))
    }

    #[test]
    fn reads_requests_one_after_the_other() {
        let mut reader = reader(
            "GET /work?ms=5&x HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
        );
        let first = reader.next(|| {}).unwrap();
        assert_eq!((first.path.as_str(), first.parameter("ms")), ("/work", Some("5")));
        assert_eq!((first.parameter("x"), first.parameter("y")), (Some(""), None));
        assert!(first.keep_alive);
        let second = reader.next(|| {}).unwrap();
        assert_eq!(second.body, b"abc");
        assert!(!second.keep_alive);
        assert!(matches!(reader.next(|| {}), Err(ReadError::Closed)));
    }

    #[test]
    fn refuses_bad_requests() {
        let check = |text: &str, code: u16| match reader(text).next(|| {}) {
            Err(ReadError::Bad(found)) => assert_eq!(found, code, "{text}"),
            other => panic!("{text}: {other:?}"),
        };
        check("nonsense\r\n\r\n", 400);
        check("GET http://x/ HTTP/1.1\r\n\r\n", 400);
        check("GET / HTTP/1.1\r\nno colon\r\n\r\n", 400);
        check("GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413);
        check("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411);
        check(&format!("GET / HTTP/1.1\r\nA: {}\r\n", "x".repeat(MAX_HEAD)), 431);
        assert!(matches!(reader("GET / HT").next(|| {}), Err(ReadError::Broken)));
    }

    #[test]
    fn http_1_0_closes_unless_asked() {
        assert!(!reader("GET / HTTP/1.0\r\n\r\n").next(|| {}).unwrap().keep_alive);
        let asked = "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";
        assert!(reader(asked).next(|| {}).unwrap().keep_alive);
    }
}
