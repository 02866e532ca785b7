//! YAML to JSON and back, as Kubernetes reads and writes YAML.
//!
//! Duplicate keys survive the way to JSON, so that decoding finds and names them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;

/// Text that is no YAML, or needs too much to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error converting YAML to JSON: yaml: {0}")]
pub struct YamlError(String);

/// How long all texts of a document may be together once aliases are replaced, in bytes: aliases of one long
/// text would make very much of little.
const MOST_TEXT: usize = 8 << 20;

/// Turns one YAML document into JSON.
///
/// Numbers like `0644` are octal, as in YAML 1.1. Aliases may replay a thousand events at most.
///
/// # Errors
/// When the text is no YAML or exceeds those limits.
pub fn to_json(text: &[u8]) -> Result<Vec<u8>, YamlError> {
    let limits = serde_saphyr::alias_limits! {
        max_total_replayed_events: 1000,
        max_replay_stack_depth: 16,
    };
    let budget = serde_saphyr::budget! { max_total_scalar_bytes: MOST_TEXT };
    let options = serde_saphyr::options! {
        budget: budget,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        legacy_octal_numbers: true,
        alias_limits: limits,
        with_snippet: false,
    };
    let json: Json = serde_saphyr::from_slice_with_options(text, options)
        .map_err(|error| YamlError(error.to_string()))?;
    Ok(json.0)
}

/// Writes JSON as YAML, keys sorted.
///
/// # Errors
/// When the bytes are no JSON.
pub fn from_json(json: &[u8]) -> Result<String, YamlError> {
    let value: serde_json::Value =
        serde_json::from_slice(json).map_err(|error| YamlError(error.to_string()))?;
    serde_saphyr::to_string(&value).map_err(|error| YamlError(error.to_string()))
}

/// JSON text as it is read.
struct Json(Vec<u8>);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Writer)
    }
}

struct Writer;

/// JSON of a scalar.
fn scalar<E: Error>(value: impl Into<serde_json::Value>) -> Result<Json, E> {
    serde_json::to_vec(&value.into()).map(Json).map_err(E::custom)
}

impl<'de> Visitor<'de> for Writer {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json(b"null".to_vec()))
    }

    fn visit_none<E: Error>(self) -> Result<Json, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        Json::deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        scalar(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        scalar(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        scalar(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        scalar(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        scalar(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut out = vec![b'['];
        while let Some(item) = items.next_element::<Json>()? {
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(&item.0);
        }
        out.push(b']');
        Ok(Json(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut out = vec![b'{'];
        while let Some((key, value)) = entries.next_entry::<Json, Json>()? {
            if out.len() > 1 {
                out.push(b',');
            }
            match key.0.first() {
                Some(b'"') => out.extend_from_slice(&key.0),
                Some(b'{' | b'[') => return Err(A::Error::custom("invalid map key")),
                // Numbers and booleans become text.
                _ => {
                    out.push(b'"');
                    out.extend_from_slice(&key.0);
                    out.push(b'"');
                }
            }
            out.push(b':');
            out.extend_from_slice(&value.0);
        }
        out.push(b'}');
        Ok(Json(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(yaml: &str, json: &str) {
        let found = to_json(yaml.as_bytes()).expect("YAML");
        assert_eq!(String::from_utf8(found).expect("text"), json);
    }

    #[test]
    fn reads_yaml_as_kubernetes_does() {
        check("a: 1\nb: [x, \"2\", 3.5, true, null]\n", r#"{"a":1,"b":["x","2",3.5,true,null]}"#);
        check("defaultMode: 0644\n", r#"{"defaultMode":420}"#);
        check("a: &x {k: v}\nb: *x\n", r#"{"a":{"k":"v"},"b":{"k":"v"}}"#);
        check("80: http\n", r#"{"80":"http"}"#);
        check("a: |\n  two\n  lines\n", r#"{"a":"two\nlines\n"}"#);
        check("a: {}\nb: []\n", r#"{"a":{},"b":[]}"#);
    }

    #[test]
    fn keeps_duplicates_for_decoding() {
        check("a: 1\na: 2\n", r#"{"a":1,"a":2}"#);
    }

    #[test]
    fn refuses_bombs_and_nonsense() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..9 {
            let many = vec![format!("*a{}", level - 1); 10].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{many}]\n"));
        }
        assert!(to_json(bomb.as_bytes()).is_err());
        assert!(to_json(b"a: [1, 2").is_err());
        assert!(to_json(b"a: b: c").is_err());
    }

    #[test]
    fn writes_yaml() {
        let text = from_json(br#"{"b":"1","a":[{"x":null}],"c":"plain","d":"yes"}"#).expect("JSON");
        let back = to_json(text.as_bytes()).expect("YAML");
        assert_eq!(
            String::from_utf8(back).expect("text"),
            r#"{"a":[{"x":null}],"b":"1","c":"plain","d":"yes"}"#
        );
    }
}
