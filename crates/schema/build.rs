//! Compiles the fact tables into static data: the graph of types and the selectable fields; and packs
//! descriptions for the OpenAPI documents.
//!
//! Knows only the tables' format; what the facts mean is the library's business.

#![expect(clippy::unwrap_used, reason = "a malformed table must stop the build")]

#[path = "build/descriptions.rs"]
mod descriptions;

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// One type as its table line and field lines say it.
#[derive(Default)]
struct Type {
    name: String,
    facts: Vec<String>,
    fields: Vec<(String, String, Vec<String>)>,
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=facts");
    let out = env::var("OUT_DIR").unwrap();
    let table = fs::read_to_string("facts/types.tsv").unwrap();
    let types = parse(&table);
    fs::write(Path::new(&out).join("graph.rs"), graph(&types)).unwrap();
    fs::write(Path::new(&out).join("descriptions.z"), descriptions::pack(&types)).unwrap();
    let table = fs::read_to_string("facts/selectable.tsv").unwrap();
    fs::write(Path::new(&out).join("selectable.rs"), selectable(&table)).unwrap();
}

fn parse(table: &str) -> Vec<Type> {
    let mut types: Vec<Type> = Vec::new();
    for line in table.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut cells = line.split('\t').map(str::to_owned);
        let first = cells.next().unwrap();
        if first.is_empty() {
            let field = (cells.next().unwrap(), cells.next().unwrap(), cells.collect());
            types.last_mut().unwrap().fields.push(field);
        } else {
            types.push(Type { name: first, facts: cells.collect(), fields: Vec::new() });
        }
    }
    types.sort_by(|a, b| a.name.cmp(&b.name));
    for one in &mut types {
        one.fields.sort();
    }
    types
}

/// The value of `key=` among a line's facts.
fn fact<'a>(facts: &'a [String], key: &str) -> Option<&'a str> {
    facts.iter().find_map(|fact| fact.strip_prefix(key)?.strip_prefix('='))
}

fn scalar(name: &str) -> Option<&'static str> {
    Some(match name {
        "string" => "Of::String",
        "bool" => "Of::Bool",
        "int32" => "Of::Int32",
        "int64" => "Of::Int64",
        "double" => "Of::Double",
        "bytes" => "Of::Bytes",
        "quantity" => "Of::Quantity",
        "intorstring" => "Of::IntOrString",
        "time" => "Of::Time",
        "microtime" => "Of::MicroTime",
        "any" => "Of::Any",
        _ => return None,
    })
}

fn type_of(code: &str, index: &BTreeMap<&str, usize>, types: &[Type]) -> String {
    if let Some(items) = code.strip_prefix('[') {
        return format!("Of::List(&{})", type_of(items, index, types));
    }
    if let Some(values) = code.strip_prefix('{') {
        return format!("Of::Map(&{})", type_of(values, index, types));
    }
    if let Some(name) = code.strip_prefix('@') {
        let at = index[name];
        return match fact(&types[at].facts, "is") {
            Some(value) => scalar(value).unwrap().to_owned(),
            None => format!("Of::Object({at})"),
        };
    }
    scalar(code).unwrap_or_else(|| panic!("type {code}")).to_owned()
}

fn graph(types: &[Type]) -> String {
    let index: BTreeMap<&str, usize> =
        types.iter().enumerate().map(|(at, one)| (one.name.as_str(), at)).collect();
    let mut out = String::new();
    let mut kinds: Vec<(String, usize)> = Vec::new();
    writeln!(out, "pub(crate) static TYPES: [Type; {}] = [", types.len()).unwrap();
    for (at, one) in types.iter().enumerate() {
        let atomic = fact(&one.facts, "map") == Some("atomic");
        let scalar = match fact(&one.facts, "is") {
            Some(value) => format!("Some({})", scalar(value).unwrap()),
            None => "None".to_owned(),
        };
        for gvk in one.facts.iter().filter_map(|fact| fact.strip_prefix("gvk=")) {
            if gvk != "*" {
                kinds.push((gvk.to_owned(), at));
            }
        }
        let union = fact(&one.facts, "union");
        writeln!(
            out,
            "Type {{ name: {:?}, id: {at}, atomic: {atomic}, scalar: {scalar}, union: {union:?}, fields: &[",
            one.name
        )
        .unwrap();
        for (name, code, facts) in &one.fields {
            let value = code.trim_start_matches(['[', '{']).strip_prefix('@');
            let value = value.filter(|name| fact(&types[index[name]].facts, "is").is_some());
            let of = type_of(code, &index, types);
            writeln!(out, "{},", field(name, &of, value.unwrap_or_default(), facts)).unwrap();
        }
        out.push_str("] },\n");
    }
    out.push_str("];\n");
    kinds.sort();
    writeln!(out, "pub(crate) static KINDS: [(&str, &str, &str, u16); {}] = [", kinds.len())
        .unwrap();
    let mut rows: Vec<(Vec<&str>, usize)> =
        kinds.iter().map(|(gvk, at)| (gvk.split('/').collect(), *at)).collect();
    rows.sort();
    for (gvk, at) in rows {
        writeln!(out, "({:?}, {:?}, {:?}, {at}),", gvk[0], gvk[1], gvk[2]).unwrap();
    }
    out.push_str("];\n");
    out
}

fn field(name: &str, of: &str, value: &str, facts: &[String]) -> String {
    let required = facts.iter().any(|fact| fact == "req");
    let list = match fact(facts, "list") {
        Some("set") => "ListType::Set".to_owned(),
        Some(map) if map.starts_with("map:") => {
            let keys: Vec<&str> = map["map:".len()..].split(',').collect();
            format!("ListType::Map(&{keys:?})")
        }
        _ => "ListType::Atomic".to_owned(),
    };
    let stated = fact(facts, "list").is_some();
    let atomic = fact(facts, "map") == Some("atomic");
    let granular = fact(facts, "map") == Some("granular");
    let strategy = fact(facts, "strategy").unwrap_or_default();
    let merge = strategy.split(',').any(|part| part == "merge");
    let replace = strategy.split(',').any(|part| part == "replace");
    let retain_keys = strategy.split(',').any(|part| part == "retainKeys");
    let merge_key = fact(facts, "merge");
    let default = fact(facts, "default");
    format!(
        "Field {{ name: {name:?}, of: {of}, value: {value:?}, required: {required}, list: {list}, stated: {stated}, \
         atomic: {atomic}, granular: {granular}, \
         patch: Patch {{ merge: {merge}, replace: {replace}, retain_keys: {retain_keys}, key: {merge_key:?} }}, \
         default: {default:?} }}"
    )
}

fn selectable(table: &str) -> String {
    let mut out = String::from("pub(crate) static SELECTABLE: &[(&str, &[&str])] = &[\n");
    for line in table.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut cells = line.split('\t');
        let kind = cells.next().unwrap();
        let fields: Vec<&str> = cells.collect();
        writeln!(out, "({kind:?}, &{fields:?}),").unwrap();
    }
    out.push_str("];\n");
    out
}
