//! Sets of fields as `fieldsV1`: nested objects whose keys are steps, `.` marking what is a member beside having
//! members below.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::element::Element;
use super::set::{Mark, Set};

impl Set {
    /// Appends the set as JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        write(self, false, out);
    }

    /// The set as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out);
        String::from_utf8(out).unwrap_or_default()
    }
}

fn write(set: &Set, member: bool, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut first = true;
    if member && !set.is_empty() {
        out.extend_from_slice(b"\".\":{}");
        first = false;
    }
    for node in set.nodes() {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        node.element.write(out);
        out.push(b':');
        write(&node.below, node.member, out);
    }
    out.push(b'}');
}

impl<'de> Deserialize<'de> for Set {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Mark::deserialize(deserializer)?.below)
    }
}

impl<'de> Deserialize<'de> for Mark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Mark;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Mark, A::Error> {
        let mut mark = Mark::default();
        // What is not in order, as it is in what we wrote: put in its place one by one it would take for ever.
        let mut late = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            if key == "." {
                mark.member = true;
                entries.next_value::<IgnoredAny>()?;
            } else if let Some(element) = Element::parse(&key).map_err(A::Error::custom)? {
                let below = entries.next_value()?;
                if mark.below.ends_before(&element) {
                    mark.below.put(element, below);
                } else {
                    late.push((element, below));
                }
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        mark.below.add(Set::of(late));
        mark.member |= mark.below.is_empty();
        Ok(mark)
    }
}
