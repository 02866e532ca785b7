//! From messages to JSON. Numbers that the table does not have are skipped, as protobuf demands.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use super::table::{Field, Kind, MessageId, Presence, TABLE};
use super::wire::{Piece, Reader};
use super::{ProtobufError, special};

/// Reads a message's fields into `object`. `depth` is how deep further messages may nest.
pub(super) fn message(
    id: MessageId,
    bytes: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let depth = depth.checked_sub(1).ok_or(ProtobufError::Damaged("nested too deep"))?;
    let mut reader = Reader::new(bytes);
    while let Some((number, piece)) = reader.next()? {
        let Some(field) = TABLE.field(id, number) else { continue };
        let Field { name, presence, kind, .. } = field;
        match kind {
            Kind::Message(inner) if field.is_inline() => {
                message(*inner, piece.bytes()?, object, depth)?;
            }
            Kind::List(element) => read_element(element, piece, list(object, name), depth)?,
            Kind::Map(value) => {
                let (key, value) = read_entry(value, piece.bytes()?, depth)?;
                let entries = object.entry(*name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(entries) = entries {
                    entries.insert(key, value);
                }
            }
            kind => {
                let value = read_value(kind, piece, depth)?;
                if *presence != Presence::Hidden && !value.is_null() || !is_nothing(&value) {
                    object.insert((*name).to_owned(), value);
                }
            }
        }
    }
    Ok(())
}

/// What JSON leaves out where a field need not be there.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}

fn list<'a>(object: &'a mut Map<String, Value>, name: &str) -> &'a mut Vec<Value> {
    let entry = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
    if !entry.is_array() {
        *entry = Value::Array(Vec::new());
    }
    match entry {
        Value::Array(list) => list,
        _ => unreachable!("made an array above"),
    }
}

/// One element of a list, or several numbers packed together.
fn read_element(
    kind: &Kind,
    piece: Piece<'_>,
    list: &mut Vec<Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    if let (Kind::Int32 | Kind::Int64 | Kind::Boolean, Piece::Bytes(packed)) = (kind, &piece) {
        let mut reader = Reader::new(packed);
        while let Some(number) = reader.packed()? {
            list.push(read_value(kind, Piece::Number(number), depth)?);
        }
        return Ok(());
    }
    list.push(read_value(kind, piece, depth)?);
    Ok(())
}

fn read_entry(kind: &Kind, bytes: &[u8], depth: usize) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut value) = (String::new(), None);
    let mut reader = Reader::new(bytes);
    while let Some((number, piece)) = reader.next()? {
        match number {
            1 => key = special::text(piece.bytes()?)?,
            2 => value = Some(read_value(kind, piece, depth)?),
            _ => {}
        }
    }
    let nothing = match kind {
        Kind::Int32 | Kind::Int64 | Kind::Boolean | Kind::Double => Piece::Number(0),
        _ => Piece::Bytes(&[]),
    };
    let value = value.map_or_else(|| read_value(kind, nothing, depth), Ok)?;
    Ok((key, value))
}

fn read_value(kind: &Kind, piece: Piece<'_>, depth: usize) -> Result<Value, ProtobufError> {
    Ok(match kind {
        Kind::String => special::text(piece.bytes()?)?.into(),
        Kind::Bytes => STANDARD.encode(piece.bytes()?).into(),
        Kind::Int32 => (piece.number()? as i32).into(),
        Kind::Int64 => piece.number()?.cast_signed().into(),
        Kind::Boolean => (piece.number()? != 0).into(),
        Kind::Double => {
            Number::from_f64(f64::from_bits(piece.number()?)).map_or(Value::Null, Value::Number)
        }
        Kind::Message(inner) => {
            let mut object = Map::new();
            message(*inner, piece.bytes()?, &mut object, depth)?;
            object.into()
        }
        Kind::Special(special) => special::read(*special, piece.bytes()?, depth)?,
        Kind::List(_) | Kind::Map(_) => return Err(ProtobufError::Damaged("a list within a list")),
    })
}

/// A JSON schema, to which special messages refer.
pub(super) fn schema(bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    let mut object = Map::new();
    message(TABLE.schema, bytes, &mut object, depth)?;
    Ok(object.into())
}
