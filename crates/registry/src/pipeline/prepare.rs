//! Stage six: what the system writes into objects, and what clients may not.

use meta::{names, time};
use serde_json::Value;

use super::Context;
use crate::object::{meta_text, metadata};
use crate::row::Row;

/// System fields of a new object: what a client says of them is dropped.
pub(super) fn fill_system_fields(context: &Context<'_>, object: &mut Value) {
    let meta = metadata(object);
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "managedFields",
        "resourceVersion",
        "selfLink",
    ] {
        meta.remove(field);
    }
    meta.insert("uid".to_owned(), names::uid().into());
    meta.insert("creationTimestamp".to_owned(), time::seconds(context.now).into());
    if context.stored.generation && context.stored.generation_at_birth {
        meta.insert("generation".to_owned(), 1.into());
    }
}

/// Gives a new object its name where only `generateName` is set. True if it did.
pub(super) fn generate_name(object: &mut Value) -> bool {
    let prefix = meta_text(object, "generateName");
    if prefix.is_empty() || !meta_text(object, "name").is_empty() {
        return false;
    }
    let name = names::generate(prefix);
    metadata(object).insert("name".to_owned(), name.into());
    true
}

/// Bumps the generation if the specification changed.
pub(super) fn bump_generation(row: &Row, object: &mut Value, old: &Value) {
    if row.generation && row.strategy.specification_changed(object, old) {
        let next = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        metadata(object).insert("generation".to_owned(), next.into());
    }
}
