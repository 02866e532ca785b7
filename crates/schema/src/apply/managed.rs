//! `metadata.managedFields`: who manages which fields of an object. Owns its JSON, and what an entry's identity is.

use serde::Deserialize;
use serde_json::Value;

use super::element::write_json;
use super::set::Set;

/// How a manager came to its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By applying.
    Apply,
    /// By any other write.
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// One manager's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The manager's name.
    pub manager: String,
    /// How it came to them.
    pub operation: Operation,
    /// The version whose names the fields have.
    pub api_version: String,
    /// When that last changed, in whole seconds.
    pub time: Option<String>,
    /// The fields.
    pub fields: Set,
    /// The subresource through which they were written; empty for the object itself.
    pub subresource: String,
    /// The version by which the entry is known, where that is another than the fields' (in a scale).
    pub known_by: Option<String>,
}

impl Entry {
    /// What no two entries share: manager, operation, subresource, and of updates the version.
    #[must_use]
    pub fn identity(&self) -> (&str, Operation, &str, &str) {
        let version = if self.operation == Operation::Apply { "" } else { self.version() };
        (&self.manager, self.operation, &self.subresource, version)
    }

    /// Whether both are about the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    /// The version that is part of its identity.
    #[must_use]
    pub fn version(&self) -> &str {
        self.known_by.as_deref().unwrap_or(&self.api_version)
    }

    /// How conflicts name it.
    #[must_use]
    pub fn printed(&self) -> String {
        let mut text = meta::quote(&self.manager);
        if !self.subresource.is_empty() {
            text = format!("{text} with subresource {}", meta::quote(&self.subresource));
        }
        match self.operation {
            Operation::Apply => text,
            Operation::Update => format!("{text} using {}", self.version()),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"manager\":");
        write_json(out, &self.manager);
        out.extend_from_slice(b",\"operation\":\"");
        out.extend_from_slice(self.operation.as_str().as_bytes());
        out.extend_from_slice(b"\",\"apiVersion\":");
        write_json(out, &self.api_version);
        if let Some(time) = &self.time {
            out.extend_from_slice(b",\"time\":");
            write_json(out, time);
        }
        out.extend_from_slice(b",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":");
        self.fields.write(out);
        if !self.subresource.is_empty() {
            out.extend_from_slice(b",\"subresource\":");
            write_json(out, &self.subresource);
        }
        out.push(b'}');
    }
}

/// An entry as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Wire {
    manager: String,
    operation: String,
    api_version: String,
    time: Option<String>,
    fields_type: String,
    #[serde(rename = "fieldsV1")]
    fields: Option<Set>,
    subresource: String,
}

/// Who manages which fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managed {
    /// One entry a manager, operation, version and subresource.
    pub entries: Vec<Entry>,
}

impl Managed {
    /// Reads the field as it is stored; nothing where it is empty or unreadable.
    #[must_use]
    pub fn read(json: &[u8]) -> Self {
        if json.is_empty() {
            return Self::default();
        }
        let wires: Vec<Wire> = serde_json::from_slice(json).unwrap_or_default();
        Self::of(wires).unwrap_or_default()
    }

    /// Reads what a client sent.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_value(value: &Value) -> Result<Self, String> {
        if value.is_null() {
            return Ok(Self::default());
        }
        Self::of(Vec::<Wire>::deserialize(value).map_err(|error| error.to_string())?)
    }

    fn of(wires: Vec<Wire>) -> Result<Self, String> {
        let mut managed = Self::default();
        for (index, wire) in wires.into_iter().enumerate() {
            let operation = match wire.operation.as_str() {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            if wire.api_version.is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            match wire.fields_type.as_str() {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
                other => {
                    return Err(format!(
                        "invalid fieldsType {other:?} in managed fields entry {index}"
                    ));
                }
            }
            let entry = Entry {
                manager: wire.manager,
                operation,
                api_version: wire.api_version,
                time: wire.time,
                fields: wire.fields.unwrap_or_default(),
                subresource: wire.subresource,
                known_by: None,
            };
            managed.entries.push(entry);
        }
        // Of entries about the same the last counts.
        managed.entries.reverse();
        managed.entries.sort_by(|one, other| one.identity().cmp(&other.identity()));
        managed.entries.dedup_by(|one, other| one.is(other));
        Ok(managed)
    }

    /// Whether nobody manages anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The field as JSON, in the order in which it is always written; empty where nobody manages anything.
    #[must_use]
    pub fn to_json(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.entries.is_empty() {
            return out;
        }
        self.entries.sort_by(|one, other| {
            let key = |entry: &Entry| {
                (
                    entry.operation,
                    entry.time.clone(),
                    entry.manager.clone(),
                    entry.api_version.clone(),
                )
            };
            key(one).cmp(&key(other)).then_with(|| one.subresource.cmp(&other.subresource))
        });
        out.reserve_exact(256 * self.entries.len());
        out.push(b'[');
        for (index, entry) in self.entries.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            entry.write(&mut out);
        }
        out.push(b']');
        out.shrink_to_fit();
        out
    }

    /// Whether both say the same, whatever the times.
    #[must_use]
    pub fn same_but_times(&self, other: &Self) -> bool {
        let timeless = |managed: &Self| {
            let mut entries = managed.entries.clone();
            entries.iter_mut().for_each(|entry| entry.time = None);
            entries.sort_by(|one, other| one.identity().cmp(&other.identity()));
            entries
        };
        self.entries.len() == other.entries.len() && timeless(self) == timeless(other)
    }
}
