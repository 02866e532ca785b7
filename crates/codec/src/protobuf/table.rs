//! Which number is which field, parsed from the table of facts when it is first needed.

use std::collections::HashMap;
use std::sync::LazyLock;

pub(super) static TABLE: LazyLock<Table> =
    LazyLock::new(|| Table::parse(include_str!("../../facts/protobuf.tsv")));

/// What a field holds.
pub(super) enum Kind {
    String,
    Integer,
    Boolean,
    Double,
    Bytes,
    Message(&'static str),
    List(Box<Kind>),
    Map(Box<Kind>),
}

/// A field; its name is `~` where its own fields stand among those around it.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// All messages.
pub(super) struct Table {
    fields: HashMap<&'static str, HashMap<u32, Field>>,
    /// By kind, then by group and version.
    kinds: HashMap<&'static str, HashMap<&'static str, &'static str>>,
}

impl Table {
    /// The message of a kind.
    pub(super) fn message(&self, version: &str, kind: &str) -> Option<&'static str> {
        // The core group has no name: `v1` stands as `/v1`.
        let group = if version.contains('/') { version.to_owned() } else { format!("/{version}") };
        let groups = self.kinds.get(kind)?;
        groups.get(group.as_str()).or_else(|| groups.get("*")).copied()
    }

    /// A message's field.
    pub(super) fn field(&self, message: &str, number: u32) -> Option<&Field> {
        self.fields.get(message)?.get(&number)
    }

    fn parse(text: &'static str) -> Self {
        let mut table = Self { fields: HashMap::new(), kinds: HashMap::new() };
        let mut message = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('=') {
                message = name;
                continue;
            }
            let mut words = line.split('\t');
            let (Some(first), Some(second), Some(third)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            match first.parse::<u32>() {
                Ok(number) => {
                    let field = Field { name: second, kind: kind(third) };
                    table.fields.entry(message).or_default().insert(number, field);
                }
                Err(_) => _ = table.kinds.entry(first).or_default().insert(second, third),
            }
        }
        table
    }
}

fn kind(text: &'static str) -> Kind {
    let (letter, rest) = text.split_at(1);
    match letter {
        "s" => Kind::String,
        "i" => Kind::Integer,
        "b" => Kind::Boolean,
        "d" => Kind::Double,
        "@" => Kind::Message(rest),
        "[" => Kind::List(Box::new(kind(rest))),
        "{" => Kind::Map(Box::new(kind(rest))),
        _ => Kind::Bytes,
    }
}
