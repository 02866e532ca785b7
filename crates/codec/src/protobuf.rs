//! Kubernetes protobuf to JSON, for the bodies of requests: what typed clients such as kubectl's own
//! commands send.
//!
//! The wire form is `k8s\0`, then a `runtime.Unknown` whose `raw` holds the object. Which number is
//! which field is a table of facts; a kind that is not in the table is refused. Answers are JSON, which
//! those clients accept too.

mod table;
mod wire;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use table::{Field, Kind, TABLE};
use wire::{Piece, Reader};

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// How deep messages may nest.
const DEEPEST: usize = 64;

/// Integers that are no pointers in the reference implementation, so that a zero is written for none.
const ZERO_IS_ABSENT: &[&str] = &[
    "count",
    "failureThreshold",
    "generation",
    "healthCheckNodePort",
    "hostPort",
    "initialDelaySeconds",
    "minReadySeconds",
    "nodePort",
    "observedGeneration",
    "periodSeconds",
    "successThreshold",
    "timeoutSeconds",
];
/// Strings that are pointers there: an empty one means something.
const EMPTY_IS_PRESENT: &[&str] = &["storageClassName", "ingressClassName", "clusterName"];

/// Why a body is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// It does not begin as Kubernetes protobuf does.
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    Prefix,
    /// Its bytes make no message.
    #[error("damaged protobuf: {0}")]
    Damaged(&'static str),
    /// Its kind has no protobuf form here.
    #[error("no kind {kind:?} is registered for version {version:?} in protobuf")]
    Kind {
        /// `apiVersion` of the object.
        version: String,
        /// `kind` of the object.
        kind: String,
    },
}

/// Turns a body into the JSON of the same object, `apiVersion` and `kind` included.
///
/// # Errors
/// When it is no Kubernetes protobuf, is damaged, or its kind is unknown.
pub fn to_json(body: &[u8]) -> Result<Vec<u8>, ProtobufError> {
    let unknown = body.strip_prefix(MAGIC).ok_or(ProtobufError::Prefix)?;
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader::new(unknown);
    while let Some((number, piece)) = reader.next()? {
        match (number, piece) {
            (1, Piece::Bytes(types)) => (version, kind) = type_meta(types)?,
            (2, Piece::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let message = TABLE
        .message(&version, &kind)
        .ok_or_else(|| ProtobufError::Kind { version: version.clone(), kind: kind.clone() })?;
    let mut object = Map::new();
    object.insert("apiVersion".into(), version.into());
    object.insert("kind".into(), kind.into());
    read_message(message, raw, &mut object, DEEPEST)?;
    serde_json::to_vec(&object).map_err(|_| ProtobufError::Damaged("no JSON can be made of it"))
}

fn type_meta(bytes: &[u8]) -> Result<(String, String), ProtobufError> {
    let (mut version, mut kind) = (String::new(), String::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, piece)) = reader.next()? {
        match (number, piece) {
            (1, Piece::Bytes(text)) => version = string(text)?,
            (2, Piece::Bytes(text)) => kind = string(text)?,
            _ => {}
        }
    }
    Ok((version, kind))
}

/// Reads a message's fields into `object`. Numbers that the table does not have are skipped, as
/// protobuf demands.
fn read_message(
    name: &str,
    bytes: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let depth = depth.checked_sub(1).ok_or(ProtobufError::Damaged("nested too deep"))?;
    let mut reader = Reader::new(bytes);
    while let Some((number, piece)) = reader.next()? {
        let Some(Field { name, kind }) = TABLE.field(name, number) else { continue };
        match kind {
            Kind::Message(inner) if *name == "~" => {
                read_message(inner, piece.bytes()?, object, depth)?
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
                if !means_nothing(name, &value) {
                    object.insert((*name).to_owned(), value);
                }
            }
        }
    }
    Ok(())
}

/// The reference implementation writes fields that hold nothing; JSON leaves them out.
fn means_nothing(name: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty() && !EMPTY_IS_PRESENT.contains(&name),
        Value::Number(number) => number.as_i64() == Some(0) && ZERO_IS_ABSENT.contains(&name),
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
    if let (Kind::Integer | Kind::Boolean, Piece::Bytes(packed)) = (kind, &piece) {
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
            1 => key = string(piece.bytes()?)?,
            2 => value = Some(read_value(kind, piece, depth)?),
            _ => {}
        }
    }
    let value = match value {
        Some(value) => value,
        None => read_value(kind, Piece::Bytes(&[]), depth)?,
    };
    Ok((key, value))
}

fn read_value(kind: &Kind, piece: Piece<'_>, depth: usize) -> Result<Value, ProtobufError> {
    Ok(match kind {
        Kind::String => string(piece.bytes()?)?.into(),
        Kind::Bytes => STANDARD.encode(piece.bytes()?).into(),
        Kind::Integer => piece.number()?.cast_signed().into(),
        Kind::Boolean => (piece.number()? != 0).into(),
        Kind::Double => {
            Number::from_f64(f64::from_bits(piece.number()?)).map_or(Value::Null, Value::Number)
        }
        Kind::Message(name) => message_value(name, piece.bytes()?, depth)?,
        Kind::List(_) | Kind::Map(_) => return Err(ProtobufError::Damaged("a list within a list")),
    })
}

/// Messages whose JSON is something else than an object of their fields.
fn message_value(name: &str, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    Ok(match name.rsplit('.').next().unwrap_or_default() {
        "Quantity" => only(bytes, 1)?
            .map(|piece| string(piece.bytes()?))
            .transpose()?
            .unwrap_or_else(|| "0".into())
            .into(),
        "IntOrString" => int_or_string(bytes)?,
        "Time" => time(bytes, 0)?,
        "MicroTime" => time(bytes, 6)?,
        "FieldsV1" | "RawExtension" => match only(bytes, 1)? {
            Some(piece) => serde_json::from_slice(piece.bytes()?)
                .map_err(|_| ProtobufError::Damaged("embedded JSON"))?,
            None => Value::Null,
        },
        "ExtraValue" => {
            let mut items = Vec::new();
            let mut reader = Reader::new(bytes);
            while let Some((number, piece)) = reader.next()? {
                if number == 1 {
                    items.push(Value::from(string(piece.bytes()?)?));
                }
            }
            items.into()
        }
        _ => {
            let mut object = Map::new();
            read_message(name, bytes, &mut object, depth)?;
            object.into()
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

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let is_string = only(bytes, 1)?.map(|piece| piece.number()).transpose()?.unwrap_or(0) == 1;
    if is_string {
        let text = only(bytes, 3)?.map(|piece| string(piece.bytes()?)).transpose()?;
        return Ok(text.unwrap_or_default().into());
    }
    // Written as the two's complement of 64 bits, whatever the width.
    let number = only(bytes, 2)?.map(|piece| piece.number()).transpose()?.unwrap_or(0);
    Ok(number.cast_signed().into())
}

/// A time without seconds is no time.
fn time(bytes: &[u8], digits: u8) -> Result<Value, ProtobufError> {
    const OUT_OF_RANGE: ProtobufError = ProtobufError::Damaged("a time out of range");
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let number = |wanted| {
        Ok::<_, ProtobufError>(
            only(bytes, wanted)?
                .map(|piece| piece.number())
                .transpose()?
                .unwrap_or(0)
                .cast_signed(),
        )
    };
    let (seconds, nanos) = (number(1)?, number(2)?);
    let nanos = i32::try_from(nanos).map_err(|_| OUT_OF_RANGE)?;
    let time = Timestamp::new(seconds, if digits == 0 { 0 } else { nanos / 1000 * 1000 })
        .map_err(|_| OUT_OF_RANGE)?;
    Ok(format!("{time:.*}", usize::from(digits)).into())
}

fn string(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec())
        .map_err(|_| ProtobufError::Damaged("a text that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A field: number, wire type 2, length, bytes.
    fn field(number: u32, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let bytes = bytes.as_ref();
        let mut out = varint(u64::from(number << 3 | 2));
        out.extend(varint(bytes.len() as u64));
        out.extend_from_slice(bytes);
        out
    }

    fn number(number: u32, value: i64) -> Vec<u8> {
        [varint(u64::from(number << 3)), varint(value.cast_unsigned())].concat()
    }

    fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }

    fn body(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let types = [field(1, version), field(2, kind)].concat();
        [MAGIC.to_vec(), field(1, types), field(2, raw)].concat()
    }

    fn read(version: &str, kind: &str, raw: &[u8]) -> Value {
        serde_json::from_slice(&to_json(&body(version, kind, raw)).unwrap()).unwrap()
    }

    #[test]
    fn a_service_with_inlined_and_special_messages() {
        let metadata =
            [field(1, "web"), field(8, []), field(11, [field(1, "a"), field(2, "")].concat())]
                .concat();
        let target = [number(1, 1), number(2, 0), field(3, "http")].concat();
        let port = [field(1, ""), number(3, 80), field(4, target), number(5, 0)].concat();
        let raw = [field(1, metadata), field(2, field(1, port)), field(3, [])].concat();
        let expected = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "labels": {"a": ""}},
            "spec": {"ports": [{"port": 80, "targetPort": "http"}]},
            "status": {},
        });
        assert_eq!(read("v1", "Service", &raw), expected);
    }

    #[test]
    fn a_pods_volume_source_stands_beside_its_name() {
        let volume = [field(1, "v"), field(2, field(2, []))].concat();
        let raw = field(2, field(1, volume));
        assert_eq!(
            read("v1", "Pod", &raw)["spec"]["volumes"],
            json!([{"name": "v", "emptyDir": {}}])
        );
    }

    #[test]
    fn zeros_that_mean_something_stay() {
        let raw = field(2, [number(1, 0), number(5, 0)].concat());
        assert_eq!(read("apps/v1", "Deployment", &raw)["spec"], json!({"replicas": 0}));
        assert_eq!(read("apps/v1", "DeleteOptions", &number(1, 0))["gracePeriodSeconds"], 0);
    }

    #[test]
    fn times_and_negative_numbers() {
        let metadata = field(8, number(1, 1_700_000_000));
        let value = [number(2, -5)].concat();
        let raw = [field(1, metadata), value].concat();
        let class = read("scheduling.k8s.io/v1", "PriorityClass", &raw);
        assert_eq!(class["metadata"]["creationTimestamp"], "2023-11-14T22:13:20Z");
        assert_eq!(class["value"], -5);
    }

    #[test]
    fn damage_is_refused() {
        assert_eq!(to_json(b"{}"), Err(ProtobufError::Prefix));
        assert!(matches!(to_json(&body("v1", "Nothing", &[])), Err(ProtobufError::Kind { .. })));
        for damaged in [&[0x0a, 0xff][..], &[0x0a, 5, 1], &[0x0b], &[0xff; 11]] {
            assert!(
                matches!(to_json(&body("v1", "Pod", damaged)), Err(ProtobufError::Damaged(_))),
                "{damaged:?}"
            );
        }
    }
}
