//! What the table is to hold: sets, maps and chains by name; and the transaction that makes a
//! change of it.
//!
//! Pure. Knows how nftables wants to be told, and nothing of policies.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    net::IpAddr,
};

use crate::{
    edits::Edits,
    netlink::nftables::{Data, Element, GOTO},
};

/// `IFNAMSIZ`.
const DEVICE_BYTES: usize = 16;
/// Elements in one command: keeps lines readable in a failure's message.
const ELEMENTS_A_COMMAND: usize = 64;

/// A set or map.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Set {
    /// `None` for those that the fixed part declares.
    declaration: Option<String>,
    /// Elements; with values in a map, with empty ones in a set.
    pub(crate) elements: BTreeMap<String, String>,
}

/// Everything the table is to hold beside its fixed part.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) sets: HashMap<String, Set>,
    pub(crate) chains: HashMap<String, Vec<String>>,
    delta: Delta,
}

/// What happens to elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Delete,
    Add,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Add => "add",
        }
    }
}

/// Elements of one set that come or go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Command<'a, T> {
    pub(crate) verb: Verb,
    pub(crate) set: &'a str,
    pub(crate) elements: T,
}

/// Changes gathered until they are made in one transaction.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    sets: Edits<String, String>,
    chains: Edits<String, Vec<String>>,
    elements: Edits<(String, String), String>,
}

impl Content {
    /// Declares a set and fills it; `declaration` is what stands between its braces.
    pub(crate) fn add_set(
        &mut self,
        name: &str,
        declaration: &str,
        elements: impl IntoIterator<Item = String>,
    ) {
        let declaration = declaration.to_owned();
        self.delta.sets.note(name.to_owned(), None, Some(declaration.clone()));
        let set = Set { declaration: Some(declaration), elements: BTreeMap::new() };
        self.sets.insert(name.to_owned(), set);
        for element in elements {
            self.set(name, &element, Some(String::new()));
        }
    }

    /// Removes a set; nothing may refer to it any more.
    pub(crate) fn remove_set(&mut self, name: &str) {
        if let Some(set) = self.sets.remove(name) {
            self.delta.sets.note(name.to_owned(), set.declaration, None);
            // Elements go with their set. One that was only just added is not added at all.
            self.delta.elements.retain(|(of, _)| of != name);
        }
    }

    /// Sets or removes an element.
    pub(crate) fn set(&mut self, set: &str, element: &str, value: Option<String>) {
        let elements = &mut self.sets.entry(set.to_owned()).or_default().elements;
        let before = match value.clone() {
            Some(value) => elements.insert(element.to_owned(), value),
            None => elements.remove(element),
        };
        if before != value {
            self.delta.elements.note((set.to_owned(), element.to_owned()), before, value);
        }
    }

    /// Makes a chain or replaces its rules.
    pub(crate) fn set_chain(&mut self, name: &str, rules: Vec<String>) {
        let before = self.chains.insert(name.to_owned(), rules.clone());
        self.delta.chains.note(name.to_owned(), before, Some(rules));
    }

    /// Removes a chain; nothing may refer to it any more.
    pub(crate) fn remove_chain(&mut self, name: &str) {
        if let Some(rules) = self.chains.remove(name) {
            self.delta.chains.note(name.to_owned(), Some(rules), None);
        }
    }

    /// What has changed since the last call.
    pub(crate) fn take_change(&mut self) -> Delta {
        std::mem::take(&mut self.delta)
    }

    /// The transaction that makes everything in a table that holds the fixed part alone.
    pub(crate) fn everything(&mut self, table: &str) -> String {
        let mut delta = Delta::default();
        for (name, set) in &self.sets {
            if let Some(declaration) = &set.declaration {
                delta.sets.note(name.clone(), None, Some(declaration.clone()));
            }
            for (element, value) in &set.elements {
                let key = (name.clone(), element.clone());
                delta.elements.note(key, None, Some(value.clone()));
            }
        }
        for (name, rules) in &self.chains {
            delta.chains.note(name.clone(), None, Some(rules.clone()));
        }
        self.delta = Delta::default();
        delta.script(table)
    }
}

impl Delta {
    /// The change as elements to delete and to add, if it is of elements alone.
    pub(crate) fn elements(&self) -> Option<Vec<Command<'_, Vec<Element>>>> {
        if self.sets.real().next().is_some() || self.chains.real().next().is_some() {
            return None;
        }
        let commands = self.element_commands().into_iter().map(|command| {
            let Command { verb, set, elements } = command;
            let encoded = elements.iter().map(|(element, value)| encode(element, value));
            Some(Command { verb, set, elements: encoded.collect::<Option<_>>()? })
        });
        commands.collect()
    }

    /// The change as nft reads it; empty if there is none.
    pub(crate) fn script(&self, table: &str) -> String {
        let mut script = String::new();
        let mut line = |text: std::fmt::Arguments<'_>| {
            // Writing to a String cannot fail.
            let _ = writeln!(script, "{text}");
        };
        // Names first, then what refers to them; references go before names do.
        for (name, edit) in self.sets.real() {
            if let (None, Some(declaration)) = (&edit.before, &edit.after) {
                line(format_args!("add set {table} {name} {{ {declaration} }}"));
            }
        }
        for (name, edit) in self.chains.real() {
            let verb = if edit.before.is_none() { "add" } else { "flush" };
            line(format_args!("{verb} chain {table} {name}"));
        }
        for (name, edit) in self.chains.real() {
            for rule in edit.after.iter().flatten() {
                line(format_args!("add rule {table} {name} {rule}"));
            }
        }
        for Command { verb, set, elements } in self.element_commands() {
            let verb = verb.word();
            for some in elements.chunks(ELEMENTS_A_COMMAND) {
                let text = |(element, value): &(&str, &str)| match *value {
                    "" => (*element).to_owned(),
                    value => format!("{element} : {value}"),
                };
                let list = some.iter().map(text).collect::<Vec<_>>().join(", ");
                line(format_args!("{verb} element {table} {set} {{ {list} }}"));
            }
        }
        for (name, _) in self.chains.real().filter(|(_, edit)| edit.after.is_none()) {
            line(format_args!("delete chain {table} {name}"));
        }
        for (name, _) in self.sets.real().filter(|(_, edit)| edit.after.is_none()) {
            line(format_args!("delete set {table} {name}"));
        }
        script
    }

    /// What goes goes first.
    fn element_commands(&self) -> Vec<Command<'_, Vec<(&str, &str)>>> {
        let mut commands: BTreeMap<(Verb, &str), Vec<(&str, &str)>> = BTreeMap::new();
        for ((set, element), edit) in self.elements.real() {
            for (verb, side) in [(Verb::Delete, &edit.before), (Verb::Add, &edit.after)] {
                if let Some(value) = side {
                    commands.entry((verb, set)).or_default().push((element, value));
                }
            }
        }
        let command = |((verb, set), elements)| Command { verb, set, elements };
        commands.into_iter().map(command).collect()
    }
}

/// An element as the kernel keeps it: parts of a key in whole 32-bit words. `None` for ranges.
fn encode(element: &str, value: &str) -> Option<Element> {
    let mut key = Vec::new();
    for part in element.split(" . ") {
        if let Ok(address) = part.parse::<IpAddr>() {
            match address {
                IpAddr::V4(address) => key.extend(address.octets()),
                IpAddr::V6(address) => key.extend(address.octets()),
            }
        } else if let Ok(port) = part.parse::<u16>() {
            key.extend(port.to_be_bytes());
            key.extend([0, 0]);
        } else {
            let device = part.strip_prefix('"')?.strip_suffix('"')?.as_bytes();
            key.extend(device);
            key.extend(std::iter::repeat_n(0, DEVICE_BYTES.checked_sub(device.len())?));
        }
    }
    let data = match value {
        "" => Data::Nothing,
        value => Data::Verdict { code: GOTO, chain: value.strip_prefix("goto ")?.to_owned() },
    };
    Some(Element { key, end: None, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_what_differs_in_an_order_that_holds() {
        let mut content = Content::default();
        content.add_set("pods/1/4", "type ipv4_addr;", ["10.0.0.1".to_owned()]);
        content.set_chain("in/1", vec!["jump p".to_owned()]);
        content.set("ingress4", "10.0.0.9", Some("goto in/1".to_owned()));
        assert_eq!(
            content.take_change().script("t"),
            "add set t pods/1/4 { type ipv4_addr; }\nadd chain t in/1\n\
             add rule t in/1 jump p\nadd element t ingress4 { 10.0.0.9 : goto in/1 }\n\
             add element t pods/1/4 { 10.0.0.1 }\n"
        );
        content.set("pods/1/4", "10.0.0.2", Some(String::new()));
        content.set("pods/1/4", "10.0.0.2", None);
        content.set_chain("in/1", vec!["jump q".to_owned()]);
        content.set_chain("in/1", vec!["jump p".to_owned()]);
        assert_eq!(content.take_change().script("t"), "", "what is undone is not written");
        content.set("ingress4", "10.0.0.9", Some("goto in/2".to_owned()));
        content.set_chain("in/2", Vec::new());
        content.remove_chain("in/1");
        content.set("pods/1/4", "10.0.0.3", Some(String::new()));
        content.remove_set("pods/1/4");
        assert_eq!(
            content.take_change().script("t"),
            "flush chain t in/1\nadd chain t in/2\n\
             delete element t ingress4 { 10.0.0.9 : goto in/1 }\n\
             add element t ingress4 { 10.0.0.9 : goto in/2 }\n\
             delete chain t in/1\ndelete set t pods/1/4\n"
        );
        assert_eq!(
            content.everything("t"),
            "add chain t in/2\nadd element t ingress4 { 10.0.0.9 : goto in/2 }\n"
        );
    }

    #[test]
    fn elements_are_laid_out_in_words() {
        let key = |element| encode(element, "").map(|element| element.key);
        assert_eq!(key("10.0.0.1 . 10.0.0.2"), Some(vec![10, 0, 0, 1, 10, 0, 0, 2]));
        assert_eq!(key("10.0.0.1 . 80"), Some(vec![10, 0, 0, 1, 0, 80, 0, 0]));
        let device = key("\"sk1\" . 10.0.0.1").expect("a device");
        assert_eq!((&device[..4], &device[16..]), (b"sk1\0".as_slice(), [10, 0, 0, 1].as_slice()));
        assert_eq!(key("10.0.0.1-10.0.0.2"), None);
        let to = encode("::1", "goto in/1").expect("an element");
        assert_eq!(to.data, Data::Verdict { code: GOTO, chain: "in/1".to_owned() });
    }
}
