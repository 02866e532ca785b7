//! From JSON to messages, as the reference implementation writes them: fields by number, fields that
//! cannot be absent even when they hold nothing, maps by key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::node::Node;
use super::table::{Field, Kind, MessageId, Presence, Special, TABLE};
use super::{ProtobufError, special, wire};

/// Appends the fields of a message; without a `node`, those of one that holds nothing.
pub(super) fn message(
    out: &mut Vec<u8>,
    message: MessageId,
    node: Option<&Node<'_>>,
) -> Result<(), ProtobufError> {
    for field in TABLE.fields(message) {
        write_field(out, field, node)?;
    }
    Ok(())
}

fn write_field(
    out: &mut Vec<u8>,
    field: &Field,
    node: Option<&Node<'_>>,
) -> Result<(), ProtobufError> {
    let Field { number, name, presence, kind } = field;
    let number = *number;
    if let (true, Kind::Message(inner)) = (field.is_inline(), kind) {
        return wire::nested(out, number, |out| message(out, *inner, node));
    }
    let value = node.and_then(|node| node.get(name));
    match (kind, value) {
        (Kind::List(_) | Kind::Map(_), None) => Ok(()),
        (Kind::List(kind), Some(Node::Array(items))) => {
            items.iter().try_for_each(|item| one(out, number, kind, Some(item)))
        }
        (Kind::Map(kind), Some(Node::Object(entries))) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_unstable_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
            sorted.into_iter().try_for_each(|(key, value)| {
                wire::nested(out, number, |out| {
                    wire::bytes(out, 1, key.as_bytes());
                    one(out, 2, kind, Some(value))
                })
            })
        }
        (Kind::Bytes | Kind::Special(Special::Strings), None) => Ok(()),
        (_, None) if *presence == Presence::Optional => Ok(()),
        (kind, value) => one(out, number, kind, value),
    }
    .map_err(|error| error.within(name))
}

/// One value; without a node, or with null, the one that means nothing.
fn one(
    out: &mut Vec<u8>,
    number: u32,
    kind: &Kind,
    node: Option<&Node<'_>>,
) -> Result<(), ProtobufError> {
    let node = node.filter(|node| !matches!(node, Node::Null));
    match (kind, node) {
        (Kind::String, None) => wire::bytes(out, number, b""),
        (Kind::String, Some(Node::Text(text))) => wire::bytes(out, number, text.as_bytes()),
        (Kind::Bytes, None) => {}
        (Kind::Bytes, Some(Node::Text(text))) => {
            let decoded = STANDARD.decode(text.as_bytes());
            wire::bytes(out, number, &decoded.map_err(|_| ProtobufError::mismatch("base64"))?);
        }
        (Kind::Int32 | Kind::Int64 | Kind::Boolean, None) => wire::number(out, number, 0),
        (Kind::Int32 | Kind::Int64, Some(Node::Integer(value))) => {
            wire::number(out, number, *value);
        }
        (Kind::Boolean, Some(Node::Boolean(value))) => wire::number(out, number, (*value).into()),
        (Kind::Double, None) => wire::double(out, number, 0.0),
        (Kind::Double, Some(Node::Integer(value))) => wire::double(out, number, *value as f64),
        (Kind::Double, Some(Node::Float(value))) => wire::double(out, number, *value),
        (Kind::Message(inner), None | Some(Node::Object(_))) => {
            return wire::nested(out, number, |out| message(out, *inner, node));
        }
        (Kind::Special(special), node) => {
            return wire::nested(out, number, |out| special::write(out, *special, node));
        }
        _ => return Err(ProtobufError::mismatch("another type")),
    }
    Ok(())
}
