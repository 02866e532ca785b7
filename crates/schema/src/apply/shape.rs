//! What a value is to server-side apply: owned as one, or by field, entry or item. Reads it off the field table.

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::element::Element;
use crate::types::{self, Field, ListType, Of, Type};

/// A place in an object, with what the table says of values there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    of: Of,
    list: ListType,
    atomic: bool,
}

/// How values of a place are owned.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// As one.
    Leaf,
    /// Field by field.
    Struct(&'static Type),
    /// Entry by entry.
    Map(Slot),
    /// Item by item: told apart by these fields, or by value if there are none.
    Items(Slot, &'static [&'static str]),
}

static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
static NULL: Value = Value::Null;
static ZEROS: LazyLock<[Value; 3]> = LazyLock::new(|| [json!(""), json!(0), json!(false)]);

impl Slot {
    /// Arbitrary JSON: maps are owned by entry.
    pub(super) const ANY: Self = Self { of: Of::Any, list: ListType::Atomic, atomic: false };

    /// The place of a field.
    pub(super) fn of(field: &Field) -> Self {
        Self { of: field.of, list: field.list, atomic: field.atomic }
    }

    /// The place of whole objects of a type.
    pub(super) fn whole(of: &Type) -> Self {
        Self::plain(Of::Object(of.id))
    }

    fn plain(of: Of) -> Self {
        Self { of, list: ListType::Atomic, atomic: false }
    }

    /// How the values here are owned where they are what the table says; arbitrary JSON as a map.
    pub(super) fn container(self) -> Shape {
        match self.of {
            _ if self.atomic => Shape::Leaf,
            Of::Object(id) => {
                let of = types::by_id(id);
                match of.scalar {
                    Some(scalar) => Self::plain(scalar).container(),
                    None if of.atomic => Shape::Leaf,
                    None => Shape::Struct(of),
                }
            }
            Of::Map(values) => Shape::Map(Self::plain(*values)),
            Of::List(items) => match self.list {
                ListType::Atomic => Shape::Leaf,
                ListType::Set => Shape::Items(Self::plain(*items), &[]),
                ListType::Map(keys) => Shape::Items(Self::plain(*items), keys),
            },
            Of::Any => Shape::Map(Self::ANY),
            _ => Shape::Leaf,
        }
    }

    /// How this value is owned here.
    pub(super) fn shape(self, value: &Value) -> Shape {
        match self.container() {
            Shape::Map(_) if matches!(self.of, Of::Any | Of::Object(_)) && !value.is_object() => {
                Shape::Leaf
            }
            shape => shape,
        }
    }

    /// The type of values here, past types that only name another.
    pub(super) fn value_type(self) -> Of {
        match self.of {
            Of::Object(id) => types::by_id(id).scalar.unwrap_or(self.of),
            of => of,
        }
    }

    /// The type of objects with fields that belong here, owned as one or not.
    pub(super) fn structure(self) -> Option<&'static Type> {
        match self.value_type() {
            Of::Object(id) => Some(types::by_id(id)),
            _ => None,
        }
    }

    /// The place of a list's items, if lists belong here.
    pub(super) fn item(self) -> Self {
        match self.of {
            Of::List(items) => Self::plain(*items),
            _ => Self::ANY,
        }
    }

    /// The place of a map's values, if maps belong here.
    pub(super) fn entry(self) -> Self {
        match self.of {
            Of::Map(values) => Self::plain(*values),
            _ => Self::ANY,
        }
    }
}

/// What an object holds in a field: where it is absent, the zero value of fields that Go's objects always have.
pub(super) fn field_of<'v>(
    object: Option<&'v Map<String, Value>>,
    field: &Field,
) -> Option<&'v Value> {
    let object = object?;
    object.get(field.name).or_else(|| match field.default {
        Some("{}") if matches!(field.of, Of::Object(_)) => Some(&*EMPTY),
        Some("\"\"") if field.required => Some(&ZEROS[0]),
        Some("0") if field.required => Some(&ZEROS[1]),
        Some("false") if field.required => Some(&ZEROS[2]),
        None if field.required => Some(&NULL),
        _ => None,
    })
}

/// How an item is told apart from its siblings.
///
/// # Errors
/// Why it cannot be.
pub(super) fn element_of(
    item: &Value,
    slot: Slot,
    keys: &'static [&'static str],
) -> Result<Element, String> {
    if keys.is_empty() {
        return match item {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            Value::Array(_) => {
                Err("not supported: associative list with lists as elements".to_owned())
            }
            Value::Null => {
                Err("associative list without keys has an element that's an explicit null"
                    .to_owned())
            }
            scalar => Ok(Element::Value(scalar.clone())),
        };
    }
    let fields = match item {
        Value::Object(fields) => fields,
        Value::Null => {
            return Err("associative list with keys may not have a null element".to_owned());
        }
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let of = slot.of.object();
    let default = |key: &str| {
        let text = of.and_then(|of| of.field(key)).and_then(|field| field.default)?;
        serde_json::from_str(text).ok()
    };
    let mut key: Vec<(Cow<'static, str>, Value)> = keys
        .iter()
        .filter_map(|key| {
            let value = fields.get(*key).cloned().or_else(|| default(key))?;
            Some((Cow::Borrowed(*key), value))
        })
        .collect();
    if key.is_empty() {
        let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] \
             (and doesn't have default values for any key fields)",
            keys.join(" ")
        ));
    }
    key.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(Element::Key(key.into()))
}

/// The items of a list, told apart and sorted; of equal ones the first comes first. Items that cannot be told apart
/// are left out.
pub(super) fn index<'v>(
    list: Option<&'v Value>,
    slot: Slot,
    keys: &'static [&'static str],
) -> Vec<(Element, &'v Value)> {
    let items = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut found: Vec<_> =
        items.iter().filter_map(|item| Some((element_of(item, slot, keys).ok()?, item))).collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

/// Whether a container holds nothing.
pub(super) fn nothing_in(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}
