//! What the Go types of Kubernetes say of their fields and nothing else does: the name in JSON, whether a
//! field is a pointer, and whether JSON leaves it out when it holds nothing.
//!
//! Reads lines, not the language: a field with a protobuf tag is one line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A field of a struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Its name in JSON; `~` where its own fields stand among those around it.
    pub(super) name: String,
    /// Whether it may point to nothing.
    pub(super) pointer: bool,
    /// Whether JSON leaves it out when it holds nothing.
    pub(super) omitted: bool,
}

/// The fields of a struct by their number in protobuf.
pub(super) type Fields = BTreeMap<u64, Field>;

/// The tree of sources; packages are read when they are first asked for.
pub(super) struct Source {
    root: PathBuf,
    packages: BTreeMap<String, BTreeMap<String, Fields>>,
}

impl Source {
    /// `root` is the directory that holds `staging`.
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.join("staging/src"), packages: BTreeMap::new() }
    }

    /// The fields of a message such as `k8s.io.api.core.v1.Pod`.
    pub(super) fn fields(&mut self, message: &str) -> anyhow::Result<Fields> {
        let (package, name) = message.rsplit_once('.').context("a message without package")?;
        if !self.packages.contains_key(package) {
            // The host of the path has the only dot that is no slash.
            let path = package.replace('.', "/").replace('_', "-").replacen("k8s/io", "k8s.io", 1);
            let structs = read(&self.root.join(path))?;
            self.packages.insert(package.to_owned(), structs);
        }
        let known = self.packages.get(package).and_then(|structs| structs.get(name));
        Ok(known.cloned().unwrap_or_default())
    }
}

fn read(directory: &Path) -> anyhow::Result<BTreeMap<String, Fields>> {
    let mut structs = BTreeMap::new();
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(".go") && !name.ends_with("_test.go") {
            parse(&fs::read_to_string(&path)?, &mut structs);
        }
    }
    Ok(structs)
}

fn parse(text: &str, structs: &mut BTreeMap<String, Fields>) {
    let mut current = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("type ") {
            current = rest.split_once(" struct {").map(|(name, _)| name.to_owned());
        } else if let (Some(name), Some((number, field))) = (&current, field(line)) {
            structs.entry(name.clone()).or_default().insert(number, field);
        }
    }
}

/// A line such as ``Name *string `json:"name,omitempty" protobuf:"bytes,1,opt,name=name"` ``.
fn field(line: &str) -> Option<(u64, Field)> {
    let (declared, tags) = line.trim_start().split_once('`')?;
    if declared.starts_with("//") {
        return None;
    }
    let tag = |name: &str| Some(tags.split_once(&format!("{name}:\""))?.1.split_once('"')?.0);
    let number = tag("protobuf")?.split(',').nth(1)?.parse().ok()?;
    let mut json = tag("json")?.split(',');
    let name = json.next()?;
    let options: Vec<&str> = json.collect();
    let kind = declared.split_whitespace().last()?;
    let field = Field {
        name: if name.is_empty() && options.contains(&"inline") { "~" } else { name }.to_owned(),
        pointer: kind.starts_with('*'),
        omitted: options.iter().any(|option| matches!(*option, "omitempty" | "omitzero")),
    };
    Some((number, field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_off_their_lines() {
        let text = "type A struct {\n\t// B *int `json:\"b\" protobuf:\"varint,9,opt,name=b\"`\n\
            \tName *string `json:\"name,omitempty\" protobuf:\"bytes,1,opt,name=name\"`\n\
            \tInner `json:\",inline\" protobuf:\"bytes,2,opt,name=inner\"`\n\
            \tCount int32 `json:\"count\" protobuf:\"varint,3,opt,name=count\"`\n}\n";
        let mut structs = BTreeMap::new();
        parse(text, &mut structs);
        let field =
            |name: &str, pointer, omitted| Field { name: name.to_owned(), pointer, omitted };
        let expected = [
            (1, field("name", true, true)),
            (2, field("~", false, false)),
            (3, field("count", false, false)),
        ];
        assert_eq!(structs["A"], BTreeMap::from(expected));
    }
}
