//! What goes from an object because its applier no longer mentions it and nobody else manages it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::collect::mentioned;
use super::managed::{Entry, Managed};
use super::remove::remove;
use super::set::Set;
use super::shape::Slot;
use super::write::Writer;
use crate::types::Type;

/// The merged object without what the last apply had and this one has not. `own` is what this one has, `others` are
/// the other managers.
pub(super) fn prune(
    writer: &Writer<'_>,
    of: &'static Type,
    merged: Value,
    last: &Entry,
    own: &Entry,
    others: &Managed,
) -> Value {
    let mut dropped = last.fields.clone();
    dropped.remove(&own.fields);
    if dropped.is_empty() && last.api_version == own.api_version {
        return merged;
    }
    let version = &last.api_version;
    let (of, at_last) = if *version == own.api_version {
        (of, merged)
    } else {
        match writer.versions.type_in(version) {
            Some(of) => (of, writer.versions.convert(&merged, &own.api_version, version)),
            None => return merged,
        }
    };
    let named = |of: &'static Type, mut set: Set| {
        set.name_fields(Slot::whole(of));
        set
    };
    let last_fields = named(of, last.fields.clone());
    let mut pruned = remove(of, &at_last, &last_fields);
    // Fields that somebody manages come back, with what they are in, version by version.
    let mut managed_at: BTreeMap<&str, Set> = BTreeMap::new();
    for entry in others.entries.iter().chain([own]) {
        managed_at.entry(&entry.api_version).or_default().add(entry.fields.clone());
    }
    // That of the last apply first: what is to be converted must be whole.
    let first = managed_at.remove(version.as_str()).unwrap_or_default();
    for (managed_in, managed) in std::iter::once((version.as_str(), first)).chain(managed_at) {
        let Some(of) = writer.versions.type_in(managed_in) else { continue };
        let convert = |object: &Value| {
            if managed_in == version {
                object.clone()
            } else {
                writer.versions.convert(object, version, managed_in)
            }
        };
        let (all, left) = (convert(&at_last), convert(&pruned));
        let mut gone = named(of, mentioned(of, &all));
        gone.remove(&named(of, mentioned(of, &left)));
        gone.remove(&named(of, managed));
        let kept = remove(of, &all, &gone);
        pruned = if managed_in == version {
            kept
        } else {
            writer.versions.convert(&kept, managed_in, version)
        };
    }
    // What the last apply did not mention is not its to remove.
    let mut gone = named(of, mentioned(of, &at_last));
    gone.remove(&named(of, mentioned(of, &pruned)));
    let object = remove(of, &at_last, &gone.intersection(&last_fields));
    if *version == own.api_version {
        object
    } else {
        writer.versions.convert(&object, version, &own.api_version)
    }
}
