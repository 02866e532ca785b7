//! The small parsed head of a stored object, computed once per write and kept beside the bytes.
//!
//! Owns what reads and garbage collection ask of every object without parsing it. Name and
//! namespace are in the key and not repeated here.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use store::Key;

use crate::row::Rows;

/// What is known of a stored object without parsing its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    uid: Box<str>,
    labels: Box<[(Box<str>, Box<str>)]>,
    owners: Box<[Box<str>]>,
    fields: Box<[Box<str>]>,
    deleting: bool,
}

/// What of an object's bytes goes into a header without selectable fields.
#[derive(Deserialize)]
struct Partial {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    uid: Box<str>,
    #[serde(default)]
    labels: BTreeMap<Box<str>, Box<str>>,
    #[serde(default)]
    owner_references: Vec<Owner>,
    #[serde(default)]
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Owner {
    #[serde(default)]
    uid: Box<str>,
}

impl Header {
    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// `metadata.labels`, sorted by key.
    pub fn labels(&self) -> &[(Box<str>, Box<str>)] {
        &self.labels
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let labels = self.labels();
        let at = labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&labels[at].1)
    }

    /// The uids in `metadata.ownerReferences`.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        self.owners.iter().map(|uid| &**uid)
    }

    /// Whether `metadata.deletionTimestamp` is set.
    pub fn deleting(&self) -> bool {
        self.deleting
    }

    /// The value of the selectable field at `index` in the row's list.
    pub(crate) fn field(&self, index: usize) -> &str {
        self.fields.get(index).map_or("", |f| f)
    }

    /// Reads the head off stored bytes without keeping the rest, where no field of it is needed.
    fn of_metadata(bytes: &[u8]) -> Option<Self> {
        let Partial { metadata } = serde_json::from_slice(bytes).ok()?;
        Some(Self {
            uid: metadata.uid,
            labels: metadata.labels.into_iter().collect(),
            owners: metadata.owner_references.into_iter().map(|owner| owner.uid).collect(),
            fields: Box::default(),
            deleting: metadata.deletion_timestamp.is_some(),
        })
    }

    /// Reads the head off an object in its storage version.
    pub(crate) fn of(object: &Value, selectable: &[String]) -> Self {
        let metadata = &object["metadata"];
        let labels = metadata["labels"].as_object().into_iter().flatten();
        let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
        Self {
            uid: metadata["uid"].as_str().unwrap_or_default().into(),
            labels: labels
                .map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into()))
                .collect(),
            owners: owners.filter_map(|o| o["uid"].as_str()).map(Into::into).collect(),
            fields: selectable.iter().map(|path| field_value(object, path).into()).collect(),
            deleting: !metadata["deletionTimestamp"].is_null(),
        }
    }
}

/// A field as selectors compare it: text as it is, numbers and booleans in decimal, unset as the
/// field's zero value.
fn field_value(object: &Value, path: &str) -> String {
    let value = match path {
        // The event's source shows as its component, falling back to the newer field.
        "source" => match &object["source"]["component"] {
            Value::String(component) if !component.is_empty() => return component.clone(),
            _ => &object["reportingComponent"],
        },
        "status.podIPs" => &object["status"]["podIPs"][0]["ip"],
        _ => path.split('.').fold(object, |value, name| &value[name]),
    };
    match value {
        Value::String(text) => text.clone(),
        Value::Null => match path {
            "spec.unschedulable" | "spec.hostNetwork" => "false".to_owned(),
            "status.replicas" | "status.successful" => "0".to_owned(),
            _ => String::new(),
        },
        other => other.to_string(),
    }
}

/// The function with which a store computes the header of what it finds on disk:
/// `(key, stored bytes) -> Header`. Bytes that are no JSON give an empty header.
pub fn header_reader(rows: Arc<Rows>) -> impl Fn(&Key, &Bytes) -> Header + Send + Sync + 'static {
    move |key, bytes| {
        let selectable = rows.selectable_of_key(key);
        if selectable.is_empty() {
            return Header::of_metadata(bytes).unwrap_or_default();
        }
        let Ok(object) = serde_json::from_slice::<Value>(bytes) else { return Header::default() };
        Header::of(&object, selectable)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_selectors_need() {
        let object = json!({
            "metadata": {
                "uid": "u1", "labels": {"b": "2", "a": "1"},
                "ownerReferences": [{"uid": "o1"}], "deletionTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"nodeName": "n1"},
        });
        let selectable = ["spec.nodeName", "spec.hostNetwork", "status.phase"].map(String::from);
        let header = Header::of(&object, &selectable);
        assert_eq!((header.uid(), header.label("b"), header.label("c")), ("u1", Some("2"), None));
        assert_eq!(header.owners().collect::<Vec<_>>(), ["o1"]);
        assert!(header.deleting());
        assert_eq!((header.field(0), header.field(1), header.field(2)), ("n1", "false", ""));
    }

    #[test]
    fn both_ways_of_reading_agree() {
        let object = json!({
            "metadata": {
                "uid": "u1", "labels": {"b": "2", "a": "1"}, "name": "x",
                "ownerReferences": [{"uid": "o1", "name": "o"}], "deletionTimestamp": "2026-01-01T00:00:00Z",
            },
            "data": {"k": "v"},
        });
        let read = header_reader(Arc::new(Rows::builtin()));
        let key = Key::new("/registry/configmaps/d/x");
        assert_eq!(read(&key, &object.to_string().into()), Header::of(&object, &[]));
    }

    #[test]
    fn the_reader_survives_rubbish() {
        let read = header_reader(Arc::new(Rows::builtin()));
        let key = Key::new("/registry/pods/default/web");
        assert_eq!(read(&key, &Bytes::from_static(b"{")), Header::default());
        let header = read(&key, &Bytes::from_static(br#"{"spec":{"nodeName":"n1"}}"#));
        assert_eq!(header.field(0), "n1");
    }
}
