//! What a document promises, without its words: a short digest for each path and schema.
//!
//! Two documents with one outline serve clients the same; a test compares ours with the reference's, which
//! is checked in as an outline only.

use std::collections::BTreeMap;

use serde_json::Value;

/// The digests of a document by path and type name; the document's own, by `name`, is that of what it holds.
#[must_use]
pub fn outline(name: &str, document: &Value) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        out.insert(path.clone(), digest(item));
    }
    let mut whole = Canonical(FNV_OFFSET);
    for (of, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        whole.bytes(of.as_bytes());
        // Options say in each document to which group they belong.
        let shared = !of.ends_with(".DeleteOptions") && !of.ends_with(".WatchEvent");
        let key = if shared { of.clone() } else { format!("{name} {of}") };
        out.insert(key, digest(schema));
    }
    for part in
        [&document["openapi"], &document["info"], &document["components"]["securitySchemes"]]
    {
        whole.value(part);
    }
    out.insert(name.to_owned(), whole.finish());
    out
}

fn digest(value: &Value) -> String {
    let mut canonical = Canonical(FNV_OFFSET);
    canonical.value(value);
    canonical.finish()
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Hashes (FNV-1a) values whatever the order of their keys and whatever their descriptions.
struct Canonical(u64);

impl Canonical {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&[0]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                self.bytes(b"{");
                let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
                pairs.sort_by_key(|(key, _)| *key);
                for (key, value) in pairs {
                    match (key.as_str(), value) {
                        // A field may be called so, too: then its value is a schema.
                        ("description", Value::String(_)) => {}
                        ("required", Value::Array(names)) => {
                            let mut names: Vec<&str> =
                                names.iter().filter_map(Value::as_str).collect();
                            names.sort_unstable();
                            self.bytes(names.join(",").as_bytes());
                        }
                        _ => {
                            self.bytes(key.as_bytes());
                            self.value(value);
                        }
                    }
                }
                self.bytes(b"}");
            }
            Value::Array(list) => {
                self.bytes(b"[");
                list.iter().for_each(|value| self.value(value));
                self.bytes(b"]");
            }
            other => self.bytes(other.to_string().as_bytes()),
        }
    }

    fn finish(self) -> String {
        format!("{:08x}", (self.0 >> 32) ^ (self.0 & 0xffff_ffff))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_and_order_do_not_count_but_facts_do() {
        let one = json!({"type": "object", "description": "a", "required": ["x", "y"]});
        let other = json!({"required": ["y", "x"], "type": "object"});
        assert_eq!(digest(&one), digest(&other));
        let field = |kind: &str| json!({"properties": {"description": {"type": kind}}});
        assert_ne!(digest(&field("string")), digest(&field("integer")));
        assert_ne!(digest(&one), digest(&json!({"type": "object", "required": ["x"]})));
    }
}
