//! Messages whose JSON is something else than an object of their fields, both ways.

use jiff::Timestamp;
use serde_json::Value;

use super::node::Node;
use super::table::{Special, TABLE};
use super::wire::{Piece, Reader};
use super::{ProtobufError, read, wire, write};

/// Go's zero time, in seconds: it stands for no time.
const NO_TIME: i64 = -62_135_596_800;

/// Appends the fields of a special message; without a node, of one that holds nothing.
pub(super) fn write(
    out: &mut Vec<u8>,
    special: Special,
    node: Option<&Node<'_>>,
) -> Result<(), ProtobufError> {
    let schema = |out: &mut Vec<u8>, number, node: &Node<'_>| {
        wire::nested(out, number, |out| write::message(out, TABLE.schema, Some(node)))
    };
    match (special, node) {
        (Special::Quantity, None) => wire::bytes(out, 1, b"0"),
        (Special::Quantity, Some(Node::Text(text))) => wire::bytes(out, 1, text.as_bytes()),
        (Special::Quantity, Some(Node::Integer(number))) => {
            wire::bytes(out, 1, number.to_string().as_bytes());
        }
        (Special::Quantity, Some(Node::Float(number))) => {
            wire::bytes(out, 1, number.to_string().as_bytes());
        }
        (Special::IntOrString, None) => int_or_string(out, 0, ""),
        (Special::IntOrString, Some(Node::Integer(number))) => int_or_string(out, *number, ""),
        (Special::IntOrString, Some(Node::Text(text))) => {
            wire::number(out, 1, 1);
            wire::number(out, 2, 0);
            wire::bytes(out, 3, text.as_bytes());
        }
        (Special::Time | Special::MicroTime | Special::Json | Special::Strings, None) => {}
        (Special::Time | Special::MicroTime, Some(Node::Text(text))) => {
            let time: Timestamp = text.parse().map_err(|_| ProtobufError::mismatch("no time"))?;
            write_time(out, time, special == Special::MicroTime);
        }
        (Special::Json, Some(node)) => {
            let json = serde_json::to_vec(node).map_err(|_| ProtobufError::mismatch("no JSON"))?;
            wire::bytes(out, 1, &json);
        }
        (Special::Strings, Some(Node::Array(items))) => return strings(out, 1, items),
        (Special::SchemaOrArray | Special::SchemaOrStrings, None) => {}
        (Special::SchemaOrArray, Some(Node::Array(items))) => {
            return items.iter().try_for_each(|item| schema(out, 2, item));
        }
        (Special::SchemaOrStrings, Some(Node::Array(items))) => return strings(out, 2, items),
        (Special::SchemaOrArray | Special::SchemaOrStrings, Some(node @ Node::Object(_))) => {
            return schema(out, 1, node);
        }
        (Special::SchemaOrBoolean, None) => wire::number(out, 1, 0),
        (Special::SchemaOrBoolean, Some(Node::Boolean(allowed))) => {
            wire::number(out, 1, (*allowed).into());
        }
        (Special::SchemaOrBoolean, Some(node @ Node::Object(_))) => {
            wire::number(out, 1, 1);
            return schema(out, 2, node);
        }
        _ => return Err(ProtobufError::mismatch("another type")),
    }
    Ok(())
}

fn int_or_string(out: &mut Vec<u8>, number: i64, text: &str) {
    wire::number(out, 1, 0);
    wire::number(out, 2, number);
    wire::bytes(out, 3, text.as_bytes());
}

fn write_time(out: &mut Vec<u8>, time: Timestamp, micro: bool) {
    // Before 1970 seconds are rounded down, so that the rest is never negative.
    let nanos = time.as_nanosecond();
    let second = i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or(NO_TIME);
    let rest = i64::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0);
    let rest = if micro { rest / 1000 * 1000 } else { 0 };
    if second != NO_TIME || rest != 0 {
        wire::number(out, 1, second);
        wire::number(out, 2, rest);
    }
}

fn strings(out: &mut Vec<u8>, number: u32, items: &[Node<'_>]) -> Result<(), ProtobufError> {
    items.iter().try_for_each(|item| match item {
        Node::Text(text) => {
            wire::bytes(out, number, text.as_bytes());
            Ok(())
        }
        _ => Err(ProtobufError::mismatch("another type")),
    })
}

/// The JSON of a special message.
pub(super) fn read(special: Special, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    Ok(match special {
        Special::Quantity => match only(bytes, 1)? {
            Some(piece) => text(piece.bytes()?)?.into(),
            None => "0".into(),
        },
        Special::IntOrString => read_int_or_string(bytes)?,
        Special::Time => read_time(bytes, 0)?,
        Special::MicroTime => read_time(bytes, 6)?,
        Special::Json => match only(bytes, 1)? {
            Some(piece) => serde_json::from_slice(piece.bytes()?)
                .map_err(|_| ProtobufError::Damaged("embedded JSON"))?,
            None => Value::Null,
        },
        Special::Strings => Value::Array(all(bytes, 1, |piece| Ok(text(piece.bytes()?)?.into()))?),
        Special::SchemaOrArray => {
            let schema = |piece: Piece<'_>| read::schema(piece.bytes()?, depth);
            let items = all(bytes, 2, schema)?;
            match only(bytes, 1)? {
                _ if !items.is_empty() => items.into(),
                Some(piece) => schema(piece)?,
                None => Value::Null,
            }
        }
        Special::SchemaOrBoolean => match (only(bytes, 2)?, only(bytes, 1)?) {
            (Some(piece), _) => read::schema(piece.bytes()?, depth)?,
            (None, Some(allowed)) => (allowed.number()? != 0).into(),
            (None, None) => false.into(),
        },
        Special::SchemaOrStrings => {
            let items = all(bytes, 2, |piece| Ok(text(piece.bytes()?)?.into()))?;
            match only(bytes, 1)? {
                _ if !items.is_empty() => items.into(),
                Some(piece) => read::schema(piece.bytes()?, depth)?,
                None => Value::Null,
            }
        }
    })
}

/// The last piece with the number `wanted`.
fn only(bytes: &[u8], wanted: u32) -> Result<Option<Piece<'_>>, ProtobufError> {
    let mut found = None;
    let mut reader = Reader::new(bytes);
    while let Some((number, piece)) = reader.next()? {
        if number == wanted {
            found = Some(piece);
        }
    }
    Ok(found)
}

/// Every piece with the number `wanted`.
fn all<'a>(
    bytes: &'a [u8],
    wanted: u32,
    read: impl Fn(Piece<'a>) -> Result<Value, ProtobufError>,
) -> Result<Vec<Value>, ProtobufError> {
    let mut found = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, piece)) = reader.next()? {
        if number == wanted {
            found.push(read(piece)?);
        }
    }
    Ok(found)
}

fn read_int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let number = |wanted| {
        Ok::<_, ProtobufError>(
            only(bytes, wanted)?.map(|piece| piece.number()).transpose()?.unwrap_or(0),
        )
    };
    if number(1)? == 1 {
        let given = only(bytes, 3)?.map(|piece| text(piece.bytes()?)).transpose()?;
        return Ok(given.unwrap_or_default().into());
    }
    let value = number(2)? as i32;
    Ok(value.into())
}

/// A time without seconds is no time.
fn read_time(bytes: &[u8], digits: u8) -> Result<Value, ProtobufError> {
    const OUT_OF_RANGE: ProtobufError = ProtobufError::Damaged("a time out of range");
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let number = |wanted| {
        let piece = only(bytes, wanted)?;
        let number = piece.map(|piece| piece.number()).transpose()?.unwrap_or(0);
        Ok::<_, ProtobufError>(number.cast_signed())
    };
    let (seconds, nanos) = (number(1)?, number(2)?);
    let nanos = i32::try_from(nanos).map_err(|_| OUT_OF_RANGE)?;
    let nanos = if digits == 0 { 0 } else { nanos / 1000 * 1000 };
    if seconds == NO_TIME && nanos == 0 {
        return Ok(Value::Null);
    }
    let time = Timestamp::new(seconds, nanos).map_err(|_| OUT_OF_RANGE)?;
    Ok(format!("{time:.*}", usize::from(digits)).into())
}

/// A text, which must be UTF-8.
pub(super) fn text(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec())
        .map_err(|_| ProtobufError::Damaged("a text that is not UTF-8"))
}
