//! Which number is which field, parsed from the table of facts when it is first needed.

use std::collections::HashMap;
use std::sync::LazyLock;

pub(super) static TABLE: LazyLock<Table> =
    LazyLock::new(|| Table::parse(include_str!("../../facts/protobuf.tsv")));

/// A message's place in the table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct MessageId(usize);

/// What a field holds.
pub(super) enum Kind {
    String,
    Int32,
    Int64,
    Boolean,
    Double,
    Bytes,
    Message(MessageId),
    Special(Special),
    List(Box<Kind>),
    Map(Box<Kind>),
}

/// Messages whose JSON is not that of their fields.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    /// Any JSON, as bytes.
    Json,
    Strings,
    SchemaOrArray,
    SchemaOrBoolean,
    SchemaOrStrings,
}

/// When a field that holds nothing is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// As it is given: holding nothing is told apart from not being there.
    Optional,
    /// Always, in protobuf and in JSON.
    Shown,
    /// In protobuf always, in JSON never.
    Hidden,
}

/// A field of a message.
pub(super) struct Field {
    pub(super) number: u32,
    /// Its name in JSON; `~` where its own fields stand among those around it.
    pub(super) name: &'static str,
    pub(super) presence: Presence,
    pub(super) kind: Kind,
}

impl Field {
    pub(super) fn is_inline(&self) -> bool {
        self.name == "~"
    }
}

/// All messages.
pub(super) struct Table {
    /// The fields of each message, by number.
    messages: Vec<Vec<Field>>,
    /// By kind, then by group and version.
    kinds: HashMap<&'static str, Vec<(&'static str, MessageId)>>,
    /// The message of JSON schemas, to which some special messages refer.
    pub(super) schema: MessageId,
}

impl Table {
    /// The message of a kind.
    pub(super) fn message(&self, version: &str, kind: &str) -> Option<MessageId> {
        let found = self.kinds.get(kind)?.iter().find(|(group, _)| {
            // The core group has no name: `v1` stands as `/v1`.
            *group == "*" || *group == version || group.strip_prefix('/') == Some(version)
        });
        found.map(|(_, message)| *message)
    }

    /// A message's fields, by number.
    pub(super) fn fields(&self, message: MessageId) -> &[Field] {
        self.messages.get(message.0).map_or(&[], Vec::as_slice)
    }

    /// A message's field.
    pub(super) fn field(&self, message: MessageId, number: u32) -> Option<&Field> {
        let fields = self.fields(message);
        fields.binary_search_by_key(&number, |field| field.number).ok().map(|at| &fields[at])
    }

    /// Every kind with a group and version of its own, as `(apiVersion, kind)`.
    #[cfg(test)]
    pub(super) fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.kinds.iter().flat_map(|(kind, groups)| {
            groups.iter().map(|(group, _)| (group.strip_prefix('/').unwrap_or(group), *kind))
        })
    }

    fn parse(text: &'static str) -> Self {
        let names = text.lines().filter_map(|line| line.strip_prefix('='));
        let ids: HashMap<_, _> =
            names.enumerate().map(|(at, name)| (name, MessageId(at))).collect();
        let id = |name: &'static str| ids.get(name).copied().unwrap_or(MessageId(usize::MAX));
        let schema = ids.keys().find(|name| name.ends_with(".JSONSchemaProps"));
        let schema = schema.map_or(MessageId(usize::MAX), |name| id(name));
        let mut table = Self { messages: Vec::new(), kinds: HashMap::new(), schema };
        for line in text.lines() {
            if line.starts_with('=') {
                table.messages.push(Vec::new());
                continue;
            }
            let mut words = line.split('\t');
            let (Some(first), Some(second), Some(third)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            match (first.parse::<u32>(), table.messages.last_mut()) {
                (Ok(number), Some(fields)) => {
                    let (presence, third) = presence(third);
                    fields.push(Field { number, name: second, presence, kind: kind(third, &id) });
                }
                _ => table.kinds.entry(first).or_default().push((second, id(third))),
            }
        }
        table
    }
}

fn presence(text: &'static str) -> (Presence, &'static str) {
    match text.as_bytes().first() {
        Some(b'?') => (Presence::Optional, &text[1..]),
        Some(b'!') => (Presence::Shown, &text[1..]),
        _ => (Presence::Hidden, text),
    }
}

fn kind(text: &'static str, id: &impl Fn(&'static str) -> MessageId) -> Kind {
    let (letter, rest) = text.split_at(1);
    Kind::Special(match letter {
        "s" => return Kind::String,
        "i" => return Kind::Int32,
        "l" => return Kind::Int64,
        "b" => return Kind::Boolean,
        "d" => return Kind::Double,
        "@" => return Kind::Message(id(rest)),
        "[" => return Kind::List(Box::new(kind(rest, id))),
        "{" => return Kind::Map(Box::new(kind(rest, id))),
        "Q" => Special::Quantity,
        "N" => Special::IntOrString,
        "T" => Special::Time,
        "M" => Special::MicroTime,
        "J" => Special::Json,
        "X" => Special::Strings,
        "A" => Special::SchemaOrArray,
        "B" => Special::SchemaOrBoolean,
        "C" => Special::SchemaOrStrings,
        _ => return Kind::Bytes,
    })
}
