//! Kubernetes protobuf to JSON and back, for every kind in a table of facts.
//!
//! The wire form is `k8s\0`, then a `runtime.Unknown` whose `raw` holds the object; the items of a list
//! stand in it bare, and the events of a watch are messages of their own around whole objects, each after
//! its length. What is written is what the reference implementation writes, byte by byte.

mod node;
mod read;
mod special;
mod table;
#[cfg(test)]
mod tests;
mod wire;
mod write;

use std::convert::Infallible;

use bytes::Bytes;
use serde_json::Map;

use crate::partial::ListMeta;
use node::Node;
use table::{MessageId, TABLE};
use wire::{Piece, Reader};

/// What every object begins with.
const MAGIC: &[u8] = b"k8s\0";
/// How deep messages may nest.
const DEEPEST: usize = 64;
/// Pieces of a list are about this long.
const CHUNK: usize = 64 << 10;

/// Why a body is not understood, or an object cannot be written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// It does not begin as Kubernetes protobuf does.
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    Prefix,
    /// Its bytes make no message.
    #[error("{0}")]
    Damaged(&'static str),
    /// Its kind has no protobuf form here.
    #[error("no kind {kind:?} is registered for version {version:?} in protobuf")]
    Kind {
        /// `apiVersion` of the object.
        version: String,
        /// `kind` of the object.
        kind: String,
    },
    /// The JSON of an object does not fit its kind.
    #[error("field {path:?} holds {found}")]
    Mismatch {
        /// The names of the fields that lead there.
        path: String,
        /// What stands there.
        found: &'static str,
    },
    /// An object is no JSON.
    #[error("no JSON: {0}")]
    Json(String),
}

impl ProtobufError {
    fn mismatch(found: &'static str) -> Self {
        Self::Mismatch { path: String::new(), found }
    }

    /// The error as seen from the message around it.
    fn within(self, name: &str) -> Self {
        match self {
            Self::Mismatch { path, found } if path.is_empty() => {
                Self::Mismatch { path: name.to_owned(), found }
            }
            Self::Mismatch { path, found } => {
                Self::Mismatch { path: format!("{name}.{path}"), found }
            }
            other => other,
        }
    }
}

impl From<serde_json::Error> for ProtobufError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error.to_string())
    }
}

fn message_of(version: &str, kind: &str) -> Result<MessageId, ProtobufError> {
    TABLE
        .message(version, kind)
        .ok_or_else(|| ProtobufError::Kind { version: version.to_owned(), kind: kind.to_owned() })
}

/// Whether a kind has a protobuf form.
#[must_use]
pub fn serves(version: &str, kind: &str) -> bool {
    TABLE.message(version, kind).is_some()
}

/// Turns a body into the JSON of the same object, `apiVersion` and `kind` included.
///
/// # Errors
/// When it is no Kubernetes protobuf, is damaged, or its kind is unknown.
pub fn to_json(body: &[u8]) -> Result<Vec<u8>, ProtobufError> {
    to_json_as(body, ("", ""))
}

/// As [`to_json`]. A body that does not say what it holds is read as `default`, an `apiVersion` and a `kind`.
///
/// # Errors
/// As [`to_json`].
pub fn to_json_as(body: &[u8], default: (&str, &str)) -> Result<Vec<u8>, ProtobufError> {
    let unknown = body.strip_prefix(MAGIC).ok_or(ProtobufError::Prefix)?;
    if unknown.is_empty() {
        return Err(ProtobufError::Damaged("empty body"));
    }
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader::new(unknown);
    while let Some((number, piece)) = reader.next()? {
        match (number, piece) {
            (1, Piece::Bytes(types)) => (version, kind) = type_meta(types)?,
            (2, Piece::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    if kind.is_empty() {
        default.1.clone_into(&mut kind);
    }
    if version.is_empty() {
        default.0.clone_into(&mut version);
    }
    let message = message_of(&version, &kind)?;
    let mut object = Map::new();
    object.insert("kind".into(), kind.into());
    object.insert("apiVersion".into(), version.into());
    read::message(message, raw, &mut object, DEEPEST)?;
    Ok(serde_json::to_vec(&object)?)
}

/// What a body says it holds: `apiVersion` and `kind`.
#[must_use]
pub fn declared(body: &[u8]) -> Option<(String, String)> {
    let mut reader = Reader::new(body.strip_prefix(MAGIC)?);
    while let Ok(Some((number, piece))) = reader.next() {
        if let (1, Piece::Bytes(types)) = (number, piece) {
            return type_meta(types).ok();
        }
    }
    None
}

fn type_meta(bytes: &[u8]) -> Result<(String, String), ProtobufError> {
    let (mut version, mut kind) = (String::new(), String::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, piece)) = reader.next()? {
        match (number, piece) {
            (1, Piece::Bytes(text)) => version = special::text(text)?,
            (2, Piece::Bytes(text)) => kind = special::text(text)?,
            _ => {}
        }
    }
    Ok((version, kind))
}

/// Writes an object that is JSON with `apiVersion` and `kind`.
///
/// # Errors
/// When its kind has no protobuf form, or its JSON does not fit its kind.
pub fn object(json: &[u8]) -> Result<Vec<u8>, ProtobufError> {
    let node: Node<'_> = serde_json::from_slice(json)?;
    let text = |name| match node.get(name) {
        Some(Node::Text(text)) => &**text,
        _ => "",
    };
    let (version, kind) = (text("apiVersion"), text("kind"));
    let message = message_of(version, kind)?;
    let mut out = Vec::with_capacity(json.len() + 64);
    open(&mut out, version, kind);
    wire::nested(&mut out, 2, |out| write::message(out, message, Some(&node)))?;
    close(&mut out);
    Ok(out)
}

/// Writes an object without saying what it is, as it stands in a list.
///
/// # Errors
/// As [`object`].
pub fn item(json: &[u8], version: &str, kind: &str) -> Result<Vec<u8>, ProtobufError> {
    let node: Node<'_> = serde_json::from_slice(json)?;
    let mut out = Vec::with_capacity(json.len());
    write::message(&mut out, message_of(version, kind)?, Some(&node))?;
    Ok(out)
}

/// An object around what [`item`] wrote.
#[must_use]
pub fn envelope(version: &str, kind: &str, item: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(item.len() + version.len() + kind.len() + 32);
    open(&mut out, version, kind);
    wire::bytes(&mut out, 2, item);
    close(&mut out);
    out
}

/// What comes before the raw bytes of an object.
fn open(out: &mut Vec<u8>, version: &str, kind: &str) {
    out.extend_from_slice(MAGIC);
    let Ok(()) = wire::nested::<Infallible>(out, 1, |out| {
        wire::bytes(out, 1, version.as_bytes());
        wire::bytes(out, 2, kind.as_bytes());
        Ok(())
    });
}

/// What comes after them: neither content encoding nor content type.
fn close(out: &mut Vec<u8>) {
    wire::bytes(out, 3, b"");
    wire::bytes(out, 4, b"");
}

/// Puts a list together of [`item`]s, in pieces.
///
/// # Errors
/// When the list's kind has no protobuf form.
pub fn list(
    version: &str,
    kind: &str,
    meta: &ListMeta,
    items: &[Bytes],
) -> Result<Vec<Bytes>, ProtobufError> {
    let fields = TABLE.fields(message_of(version, kind)?);
    let number =
        |name: &str| fields.iter().find(|field| field.name == name).map_or(0, |field| field.number);
    let (metadata, item) = (number("metadata"), number("items"));
    let json = serde_json::to_vec(meta)?;
    let head = |length: usize| {
        let mut head = Vec::new();
        wire::head(&mut head, item, length);
        head
    };
    let mut first = Vec::new();
    let node: Node<'_> = serde_json::from_slice(&json)?;
    let list_meta = message_of("", "ListMeta")?;
    wire::nested(&mut first, metadata, |out| write::message(out, list_meta, Some(&node)))?;
    let length: usize = items.iter().map(|bytes| head(bytes.len()).len() + bytes.len()).sum();
    let mut out = Vec::with_capacity(CHUNK.min(length + first.len() + 128));
    open(&mut out, version, kind);
    wire::head(&mut out, 2, length + first.len());
    let mut chunks = Vec::new();
    // Metadata is the first field of every list.
    out.extend_from_slice(&first);
    for bytes in items {
        out.extend_from_slice(&head(bytes.len()));
        out.extend_from_slice(bytes);
        if out.len() >= CHUNK {
            chunks.push(Bytes::from(std::mem::take(&mut out)));
        }
    }
    close(&mut out);
    chunks.push(out.into());
    Ok(chunks)
}

/// One event of a watch around an object, or a `Status`, that is already protobuf: its length in four
/// bytes, then the event.
#[must_use]
pub fn frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + event.len() + 24);
    out.extend_from_slice(&[0; 4]);
    wire::bytes(&mut out, 1, event.as_bytes());
    let Ok(()) = wire::nested::<Infallible>(&mut out, 2, |out| {
        wire::bytes(out, 1, object);
        Ok(())
    });
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}
