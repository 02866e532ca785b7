//! Reads the checked-in table of built-in kinds into rows.
//!
//! Owns the table's syntax. The table is generated (`cargo xtask facts`), so a line that cannot be
//! read is a defect of the build, which a test would show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meta::{GroupVersionKind, GroupVersionResource};

use crate::row::{Durability, Row, Scope, Storage, Subresource};
use crate::strategy;
use crate::verb::Verb;

const TABLE: &str = include_str!("builtin.tsv");

/// The rows of the table. Rows of one resource share their storage.
pub(crate) fn rows() -> Vec<Row> {
    let mut storages = BTreeMap::new();
    TABLE.lines().filter(|l| !l.starts_with('#')).map(|line| row(line, &mut storages)).collect()
}

fn row(line: &str, storages: &mut BTreeMap<String, Arc<Storage>>) -> Row {
    let mut cells = line.split('\t').map(|cell| if cell == "-" { "" } else { cell });
    let mut next = || cells.next().expect("a row of the built-in table has thirteen cells");
    let (api_version, kind, plural, singular, scope, verbs) =
        (next(), next(), next(), next(), next(), next());
    let (short_names, categories, subresources, type_name) = (next(), next(), next(), next());
    let (storage, selectable, traits) = (next(), next(), next());
    let kind = gvk(api_version, kind);
    let traits: Vec<&str> = traits.split(',').collect();
    let storage = (!storage.is_empty()).then(|| {
        let segment = storage.split('@').next().unwrap_or_default();
        storages
            .entry(segment.to_owned())
            .or_insert_with(|| Arc::new(read_storage(storage, &kind, &traits)))
            .clone()
    });
    Row {
        list_kind: format!("{}List", kind.kind),
        resource: GroupVersionResource {
            group: kind.group.clone(),
            version: kind.version.clone(),
            resource: plural.to_owned(),
        },
        singular: singular.to_owned(),
        short_names: words(short_names),
        categories: words(categories),
        scope: if scope == "namespaced" { Scope::Namespaced } else { Scope::Cluster },
        verbs: read_verbs(verbs),
        subresources: subresources
            .split(';')
            .filter(|s| !s.is_empty())
            .map(|s| read_subresource(s, &kind))
            .collect(),
        type_name: type_name.to_owned(),
        by_node: traits
            .iter()
            .find_map(|t| t.strip_prefix("node:"))
            .and_then(|field| selectable.split(',').position(|selectable| selectable == field)),
        selectable: words(selectable),
        generation: traits.contains(&"generation"),
        generation_at_birth: !traits.contains(&"unborn"),
        status_keeps: traits.iter().find_map(|t| kept_by_status(t)).unwrap_or_default(),
        returned: traits.contains(&"returned"),
        conditional: traits.contains(&"conditional"),
        upsert: traits.contains(&"upsert"),
        deprecated: traits.iter().find_map(|t| t.strip_prefix("deprecated:")).map(str::to_owned),
        storage,
        strategy: strategy::of(&kind),
        head: format!(
            r#"{{"kind":"{}","apiVersion":"{}","metadata":{{"#,
            kind.kind,
            kind.api_version()
        )
        .into(),
        kind,
    }
}

fn read_storage(cell: &str, kind: &GroupVersionKind, traits: &[&str]) -> Storage {
    let (segment, stored) = match cell.split_once('@') {
        Some((segment, api_version)) => (segment, gvk(api_version, &kind.kind)),
        None => (cell, kind.clone()),
    };
    let durability = traits.iter().find_map(|t| match t.split_once(':') {
        Some(("relaxed", "kube-node-lease")) => Some(Durability::RelaxedIn("kube-node-lease")),
        None if *t == "relaxed" => Some(Durability::Relaxed),
        _ => None,
    });
    let ttl = traits
        .iter()
        .find_map(|t| t.strip_prefix("ttl:"))
        .and_then(|seconds| seconds.parse().ok())
        .map(Duration::from_secs);
    Storage {
        segment: segment.to_owned(),
        kind: stored,
        durability: durability.unwrap_or(Durability::Durable),
        sealed: traits.contains(&"sealed"),
        ttl,
    }
}

fn kept_by_status(cell: &str) -> Option<&'static [&'static str]> {
    match cell.strip_prefix("keeps:")? {
        "labels" => Some(&["labels"]),
        _ => Some(&["labels", "annotations", "finalizers", "ownerReferences"]),
    }
}

fn read_subresource(cell: &str, row: &GroupVersionKind) -> Subresource {
    let (name, verbs) = cell.split_once(':').unwrap_or((cell, ""));
    let (name, kind) = name.split_once('=').unwrap_or((name, ""));
    let (kind, foreign) = match kind.rsplit_once('/') {
        Some((api_version, kind)) => (gvk(api_version, kind), true),
        None if kind.is_empty() => (row.clone(), false),
        None => (GroupVersionKind { kind: kind.to_owned(), ..row.clone() }, false),
    };
    Subresource { name: name.to_owned(), kind, foreign, verbs: read_verbs(verbs) }
}

fn gvk(api_version: &str, kind: &str) -> GroupVersionKind {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    GroupVersionKind { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() }
}

fn read_verbs(cell: &str) -> Vec<Verb> {
    cell.split(',')
        .filter(|v| !v.is_empty())
        .map(|v| v.parse().expect("the built-in table names known verbs"))
        .collect()
}

fn words(cell: &str) -> Vec<String> {
    cell.split(',').filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_row() {
        let rows = rows();
        assert_eq!(rows.len(), TABLE.lines().filter(|l| !l.starts_with('#')).count());
        let find = |plural: &str, version: &str| {
            rows.iter()
                .find(|r| r.resource.resource == plural && r.kind.version == version)
                .expect(plural)
        };
        let deployments = find("deployments", "v1");
        assert_eq!(deployments.short_names, ["deploy"]);
        assert!(deployments.generation && deployments.namespaced());
        let scale = deployments.subresource("scale").expect("scale");
        assert_eq!((scale.kind.kind.as_str(), scale.foreign), ("Scale", true));
        let leases = find("leases", "v1").storage.clone().expect("stored");
        assert_eq!(leases.durability, Durability::RelaxedIn("kube-node-lease"));
        assert!(find("secrets", "v1").storage.as_ref().expect("stored").sealed);
        let (one, two) =
            (find("horizontalpodautoscalers", "v1"), find("horizontalpodautoscalers", "v2"));
        assert!(!one.served_as_stored() && two.served_as_stored());
        let (one, two) = (one.storage.as_ref(), two.storage.as_ref());
        assert!(Arc::ptr_eq(one.expect("stored"), two.expect("stored")));
    }
}
