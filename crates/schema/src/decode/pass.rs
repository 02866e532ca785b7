//! One pass over a deserializer, guided by the type graph.
//!
//! Collects the first wrong type and every unknown or duplicate field, and goes on as Go's decoder does.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::Of;
use crate::scalar;
use crate::types::{self, Field, Type};

/// How deep an object may nest. Arbitrary JSON in it would nest further otherwise, and who manages its fields lies
/// deeper than they do, and objects lie in lists: all of it must be within the 128 that readers of JSON take, or one
/// object keeps everybody from reading the others.
const DEEPEST: usize = 100;

/// At most this many unknown or duplicate fields are reported.
const MOST_STRICT: usize = 100;

/// What a pass has seen so far and where it is.
pub(super) struct Pass {
    /// Path with indexes, for unknown and duplicate fields.
    path: String,
    /// Path of field names only, as Go's type errors print it.
    names: String,
    /// The type whose field is being read.
    owner: &'static str,
    /// How deep the value lies that is being read.
    depth: usize,
    /// The first value of a wrong type.
    pub(super) failure: Option<String>,
    /// Unknown and duplicate fields.
    pub(super) strict: Vec<String>,
    /// Whether duplicates are looked for in untyped JSON.
    untyped: bool,
}

impl Pass {
    pub(super) fn new(of: &Type) -> Self {
        Self { owner: of.short_name(), untyped: false, ..Self::untyped() }
    }

    pub(super) fn untyped() -> Self {
        Self {
            path: String::new(),
            names: String::new(),
            owner: "",
            depth: 0,
            failure: None,
            strict: Vec::new(),
            untyped: true,
        }
    }

    fn fail(&mut self, problem: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(problem());
        }
    }

    fn mismatch(&mut self, got: &str, wanted: &Of) {
        let (owner, names) = (self.owner, self.names.as_str());
        let wanted = go_type(owner, names, wanted);
        let problem = if names.is_empty() {
            format!("json: cannot unmarshal {got} into Go value of type {wanted}")
        } else {
            format!(
                "json: cannot unmarshal {got} into Go struct field {owner}.{names} of type {wanted}"
            )
        };
        self.fail(|| problem);
    }

    fn strict(&mut self, problem: &str, name: &str) {
        if self.strict.len() < MOST_STRICT {
            let dot = if self.path.is_empty() { "" } else { "." };
            self.strict.push(format!("{problem} field \"{}{dot}{name}\"", self.path));
        }
    }

    /// Runs `read` one step deeper; `field` is a struct's field rather than a map's key.
    fn within<T>(&mut self, name: &str, field: bool, read: impl FnOnce(&mut Self) -> T) -> T {
        let (path, names) = (self.path.len(), self.names.len());
        push(&mut self.path, name);
        if field {
            push(&mut self.names, name);
        }
        let result = self.deeper(read);
        self.path.truncate(path);
        self.names.truncate(names);
        result
    }

    fn at_index<T>(&mut self, index: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        let path = self.path.len();
        self.path.push('[');
        self.path.push_str(&index.to_string());
        self.path.push(']');
        let result = self.deeper(read);
        self.path.truncate(path);
        result
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Whether an object or list here would lie too deep, which is a failure.
    fn too_deep(&mut self) -> bool {
        let too_deep = self.depth >= DEEPEST;
        if too_deep {
            self.fail(|| "exceeded max depth".to_owned());
        }
        too_deep
    }
}

fn push(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// The Go type of a field, as error texts name it.
fn go_type(owner: &str, names: &str, of: &Of) -> String {
    match of {
        Of::String => named_string(owner, names.rsplit('.').next().unwrap_or_default()).to_owned(),
        Of::Quantity | Of::Time | Of::MicroTime | Of::Any => "string".to_owned(),
        Of::Bool => "bool".to_owned(),
        Of::Int32 | Of::IntOrString => "int32".to_owned(),
        Of::Int64 => "int64".to_owned(),
        Of::Double => "float64".to_owned(),
        Of::Bytes => "[]uint8".to_owned(),
        Of::Object(id) => {
            let of = types::by_id(*id);
            let package = of.name.rsplit('.').nth(1).unwrap_or_default();
            format!("{package}.{}", of.short_name())
        }
        Of::List(items) => format!("[]{}", go_type("", "", items)),
        Of::Map(Of::Quantity) => "v1.ResourceList".to_owned(),
        Of::Map(values) => format!("map[string]{}", go_type("", "", values)),
    }
}

/// Go's own name of a string type, for the fields users most often get wrong.
fn named_string(owner: &str, field: &str) -> &'static str {
    match (owner, field) {
        ("ServiceSpec", "type") => "v1.ServiceType",
        ("ServiceSpec", "sessionAffinity") => "v1.ServiceAffinity",
        ("PodSpec", "restartPolicy") => "v1.RestartPolicy",
        ("PodSpec", "dnsPolicy") => "v1.DNSPolicy",
        ("Container" | "EphemeralContainer", "imagePullPolicy") => "v1.PullPolicy",
        ("Container" | "EphemeralContainer", "terminationMessagePolicy") => {
            "v1.TerminationMessagePolicy"
        }
        ("ContainerPort" | "ServicePort", "protocol") => "v1.Protocol",
        ("HTTPGetAction", "scheme") => "v1.URIScheme",
        ("Secret", "type") => "v1.SecretType",
        ("DeploymentStrategy", "type") => "v1.DeploymentStrategyType",
        ("Taint", "effect") => "v1.TaintEffect",
        ("Toleration", "operator") => "v1.TolerationOperator",
        _ => "string",
    }
}

/// Reads one value of type `of`. Yields nothing for null, for an empty list or map, and for a failure.
pub(super) struct Seed<'p> {
    pub(super) pass: &'p mut Pass,
    pub(super) of: Of,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seed<'_> {
    fn wrong(self, got: &str) -> Option<Value> {
        if self.of == Of::Quantity {
            self.pass.fail(|| scalar::QUANTITY_FORMAT.to_owned());
        } else {
            self.pass.mismatch(got, &self.of);
        }
        None
    }

    fn integer(self, value: i128) -> Option<Value> {
        let fits = match self.of {
            Of::Int32 | Of::IntOrString => i32::try_from(value).is_ok(),
            Of::Int64 => i64::try_from(value).is_ok(),
            Of::Double | Of::Any => return Some(number(value)),
            Of::Quantity => return self.quantity(&value.to_string()),
            _ => return self.wrong("number"),
        };
        if fits { Some(number(value)) } else { self.wrong(&format!("number {value}")) }
    }

    fn quantity(self, text: &str) -> Option<Value> {
        match scalar::quantity(text) {
            Ok(text) => Some(Value::String(text)),
            Err(problem) => {
                self.pass.fail(|| problem);
                None
            }
        }
    }

    fn text(self, text: &str) -> Option<Value> {
        let canonical = match self.of {
            Of::String | Of::IntOrString | Of::Any => Ok(text.to_owned()),
            Of::Quantity => scalar::quantity(text),
            Of::Time => scalar::time(text),
            Of::MicroTime => scalar::micro_time(text),
            Of::Bytes => scalar::base64(text),
            _ => return self.wrong("string"),
        };
        match canonical {
            Ok(text) => Some(Value::String(text)),
            Err(problem) => {
                self.pass.fail(|| problem);
                None
            }
        }
    }
}

fn number(value: i128) -> Value {
    match (i64::try_from(value), u64::try_from(value)) {
        (Ok(value), _) => Value::from(value),
        (_, Ok(value)) => Value::from(value),
        _ => Value::Null,
    }
}

/// What null becomes where something must stand: in a list or map.
fn zero(of: &Of) -> Value {
    match of {
        Of::String | Of::Bytes => Value::String(String::new()),
        Of::Quantity => Value::String("0".to_owned()),
        Of::Bool => Value::Bool(false),
        Of::Int32 | Of::Int64 | Of::Double | Of::IntOrString => Value::from(0),
        Of::Time | Of::MicroTime | Of::Any => Value::Null,
        Of::Object(_) | Of::Map(_) => Value::Object(Map::new()),
        Of::List(_) => Value::Array(Vec::new()),
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok((self.of == Of::Any && self.pass.untyped).then_some(Value::Null))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(match self.of {
            Of::Bool | Of::Any => Some(Value::Bool(value)),
            _ => self.wrong("bool"),
        })
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(self.integer(i128::from(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(self.integer(i128::from(value)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(match self.of {
            Of::Double | Of::Any => Some(Value::from(value)),
            Of::Quantity => self.quantity(&value.to_string()),
            Of::Int32 | Of::Int64 | Of::IntOrString => self.wrong(&format!("number {value:?}")),
            _ => self.wrong("number"),
        })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let of = match self.of {
            Of::List(of) => Some(*of),
            Of::Any => Some(Of::Any),
            _ => None,
        };
        let Some(of) = of.filter(|_| !self.pass.too_deep()) else {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(self.wrong("array"));
        };
        let pass = self.pass;
        let mut list = Vec::new();
        loop {
            let index = list.len();
            let read = pass.at_index(index, |pass| items.next_element_seed(Seed { pass, of }))?;
            match read {
                Some(item) => list.push(item.unwrap_or_else(|| zero(&of))),
                None => break,
            }
        }
        // An empty list of managers is a wish: to forget them all.
        let keep = self.of == Of::Any || !list.is_empty() || pass.path == "metadata.managedFields";
        Ok(keep.then_some(Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        match self.of {
            Of::Object(_) | Of::Map(_) | Of::Any if self.pass.too_deep() => {
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(None)
            }
            Of::Object(id) => object(self.pass, types::by_id(id), entries).map(Some),
            Of::Map(of) => {
                let map = map(self.pass, *of, entries)?;
                Ok((!map.is_empty()).then_some(Value::Object(map)))
            }
            Of::Any => map(self.pass, Of::Any, entries).map(Value::Object).map(Some),
            _ => {
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(self.wrong("object"))
            }
        }
    }
}

fn map<'de, A: MapAccess<'de>>(
    pass: &mut Pass,
    of: Of,
    mut entries: A,
) -> Result<Map<String, Value>, A::Error> {
    let mut map = Map::new();
    while let Some(key) = entries.next_key::<String>()? {
        let value = pass.within(&key, false, |pass| entries.next_value_seed(Seed { pass, of }))?;
        if (of != Of::Any || pass.untyped) && map.contains_key(&key) {
            pass.strict("duplicate", &key);
        }
        map.insert(key, value.unwrap_or_else(|| zero(&of)));
    }
    Ok(map)
}

fn object<'de, A: MapAccess<'de>>(
    pass: &mut Pass,
    of: &'static Type,
    mut entries: A,
) -> Result<Value, A::Error> {
    let mut object = Map::new();
    let mut seen = 0_u128;
    let outer = std::mem::replace(&mut pass.owner, of.short_name());
    while let Some(key) = entries.next_key_seed(Key { of })? {
        match key {
            Found::Field(field, at) => {
                if seen & (1 << at) != 0 {
                    pass.strict("duplicate", field.name);
                }
                seen |= 1 << at;
                let read = pass.within(field.name, true, |pass| {
                    entries.next_value_seed(Seed { pass, of: field.of })
                })?;
                match read {
                    Some(value) => object.insert(field.name.to_owned(), value),
                    None => object.remove(field.name),
                };
            }
            Found::Unknown(name) => {
                pass.strict("unknown", &name);
                entries.next_value::<IgnoredAny>()?;
            }
        }
    }
    pass.owner = outer;
    Ok(Value::Object(object))
}

/// Reads a key and finds its field without keeping the text.
struct Key {
    of: &'static Type,
}

enum Found {
    Field(&'static Field, usize),
    Unknown(String),
}

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(match self.of.fields.binary_search_by(|field| field.name.cmp(name)) {
            Ok(at) => Found::Field(&self.of.fields[at], at),
            Err(_) => Found::Unknown(name.to_owned()),
        })
    }
}
