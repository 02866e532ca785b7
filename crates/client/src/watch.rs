//! One watch request: its answer's lines as events.
//!
//! Knows the frames of a watch and their bounds; nothing of when to watch or what to do with an event.

use bytes::{Buf, Bytes, BytesMut};
use http::Request;
use http_body_util::BodyExt;
use kube::{client::Body, core::Status};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Object;

/// No event is longer: an object is at most 3 MiB, and escaping may double it.
const LONGEST: usize = 16 << 20;
/// No refusal is longer.
const LONGEST_REFUSAL: usize = 1 << 20;

/// What a line of a watch says.
#[derive(Debug)]
pub(crate) enum Event<K> {
    /// Added or changed.
    Applied(K),
    /// Gone; its last state.
    Deleted(K),
    /// Nothing changed up to this resource version.
    Bookmark(String),
    /// The watch cannot go on.
    Error(Box<Status>),
}

/// The lines of a watch.
pub(crate) struct Lines {
    body: Body,
    /// The rest of the last chunk.
    chunk: Bytes,
    /// The beginning of a line whose end has not come.
    begun: BytesMut,
}

impl Lines {
    /// Sends the request; what the server refuses is an error with its `Status`.
    pub(crate) async fn open(
        client: &kube::Client,
        request: Request<Vec<u8>>,
    ) -> Result<Self, kube::Error> {
        let response = client.send(request.map(Body::from)).await?;
        let code = response.status();
        if !code.is_success() {
            let refusal = http_body_util::Limited::new(response.into_body(), LONGEST_REFUSAL);
            let text = refusal.collect().await.map_err(kube::Error::Service)?.to_bytes();
            let status = serde_json::from_slice(&text).unwrap_or_else(|_| {
                Status::failure(&String::from_utf8_lossy(&text), "").with_code(code.as_u16())
            });
            return Err(kube::Error::Api(status.boxed()));
        }
        Ok(Self { body: response.into_body(), chunk: Bytes::new(), begun: BytesMut::new() })
    }

    /// The next event; `None` when the server has closed the watch. Cancel safe.
    pub(crate) async fn next<K: Object>(&mut self) -> Option<Result<Event<K>, kube::Error>> {
        loop {
            if let Some(line) = self.take_line() {
                return Some(decode(&line).map_err(kube::Error::SerdeError));
            }
            if self.begun.len() > LONGEST {
                let why = format!("an event is longer than {LONGEST} bytes");
                return Some(Err(kube::Error::ReadEvents(std::io::Error::other(why))));
            }
            match self.body.frame().await? {
                Ok(frame) => self.chunk = frame.into_data().unwrap_or_default(),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The next whole line of what has been read. A line within one chunk is not copied.
    fn take_line(&mut self) -> Option<Bytes> {
        let Some(end) = self.chunk.iter().position(|byte| *byte == b'\n') else {
            self.begun.extend_from_slice(&std::mem::take(&mut self.chunk));
            return None;
        };
        let line = self.chunk.split_to(end);
        self.chunk.advance(1);
        if self.begun.is_empty() {
            return Some(line);
        }
        self.begun.extend_from_slice(&line);
        Some(self.begun.split().freeze())
    }
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: BookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMeta {
    resource_version: String,
}

fn decode<K: Object>(line: &[u8]) -> Result<Event<K>, serde_json::Error> {
    if let Some((kind, object)) = split(line)
        && let Ok(event) = event(kind, object)
    {
        return Ok(event);
    }
    let frame: Frame<'_> = serde_json::from_slice(line)?;
    event(frame.kind, frame.object.get())
}

/// Type and object of a line that is written as servers write it, without reading the object.
fn split(line: &[u8]) -> Option<(&str, &str)> {
    let rest = std::str::from_utf8(line).ok()?.strip_prefix(r#"{"type":""#)?;
    let (kind, rest) = rest.split_once('"')?;
    let object = rest.strip_prefix(r#","object":"#)?.trim_end().strip_suffix('}')?;
    Some((kind, object))
}

fn event<K: Object>(kind: &str, object: &str) -> Result<Event<K>, serde_json::Error> {
    Ok(match kind {
        "ADDED" | "MODIFIED" => Event::Applied(serde_json::from_str(object)?),
        "DELETED" => Event::Deleted(serde_json::from_str(object)?),
        "BOOKMARK" => {
            let bookmark: Bookmark = serde_json::from_str(object)?;
            Event::Bookmark(bookmark.metadata.resource_version)
        }
        "ERROR" => Event::Error(serde_json::from_str(object)?),
        other => {
            let why = format!("{other:?} is no type of a watch event");
            return Err(serde::de::Error::custom(why));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&'static str]) -> Vec<String> {
        let mut lines = Lines { body: Body::empty(), chunk: Bytes::new(), begun: BytesMut::new() };
        let mut seen = Vec::new();
        for chunk in chunks {
            lines.chunk = Bytes::from_static(chunk.as_bytes());
            while let Some(line) = lines.take_line() {
                seen.push(String::from_utf8_lossy(&line).into_owned());
            }
        }
        seen
    }

    #[test]
    fn lines_are_found_however_they_are_cut() {
        assert_eq!(lines(&["a\nb\n"]), ["a", "b"]);
        assert_eq!(lines(&["a", "", "b\nc", "\n", "\n", "d"]), ["ab", "c", ""]);
    }

    #[test]
    fn lines_are_read_however_they_are_written() {
        for line in [
            r#"{"type":"ADDED","object":{"metadata":{"uid":"u"}}}"#,
            r#"{ "type" : "ADDED", "object": {"metadata":{"uid":"u"}} }"#,
            r#"{"object":{"metadata":{"uid":"u"}},"type":"ADDED"}"#,
            r#"{"type":"ADDED","object":{"metadata":{"uid":"u"}},"more":{}}"#,
        ] {
            let event = decode::<crate::Metadata>(line.as_bytes());
            assert!(
                matches!(&event, Ok(Event::Applied(o)) if o.metadata.uid.as_deref() == Some("u")),
                "{line}: {event:?}"
            );
        }
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        type Any = crate::Metadata;
        for line in ["", "{}", r#"{"type":"ADDED"}"#, r#"{"type":"NEW","object":{}}"#, "\u{fffd}"] {
            assert!(decode::<Any>(line.as_bytes()).is_err(), "{line}");
        }
        let line = r#"{"type":"BOOKMARK","object":{"kind":"x","apiVersion":"v1","metadata":{"resourceVersion":"7"}}}"#;
        assert!(matches!(decode::<Any>(line.as_bytes()), Ok(Event::Bookmark(v)) if v == "7"));
        let line = r#"{"type":"DELETED","object":{"metadata":{"uid":"u"},"spec":[1]}}"#;
        let deleted = decode::<Any>(line.as_bytes());
        assert!(matches!(deleted, Ok(Event::Deleted(o)) if o.metadata.uid.as_deref() == Some("u")));
    }
}
