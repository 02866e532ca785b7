//! Stage four: who manages which fields, `metadata.managedFields`.
//!
//! Owns what a write of each resource and subresource can touch, and in which versions a resource's fields have
//! names. The rules themselves are the schema's (`schema::apply`). Between parsing and encoding, who manages what
//! is JSON beside the object; most writes look into it once or not at all.

mod apply;
mod reset;
mod scale;

use bytes::Bytes;
use meta::{FieldError, FieldPath, Status, time};
use schema::apply::{Managed, Versions, Writer};
use schema::types::{self, Type};
use serde_json::{Map, Value};

pub(crate) use apply::Apply;
pub(crate) use scale::Scaled;

use super::Context;
use crate::convert;
use crate::object::{meta_text, metadata};
use crate::params::field_manager;
use crate::row::Row;

/// The stored object that a write starts from.
pub(crate) struct Live<'a> {
    /// The object in the served version, without `metadata.managedFields`; null where there is none.
    pub(crate) object: &'a Value,
    /// Who manages its fields, as JSON; empty if nobody.
    pub(crate) managed: &'a Bytes,
}

/// What a write asks for.
pub(crate) struct Made {
    /// The object in the served version.
    pub(crate) object: Value,
    /// Who manages its fields, where the write says so itself.
    pub(crate) managed: Option<Bytes>,
}

/// What turns the stored object into the one asked for.
pub(crate) trait Make {
    /// Makes it; called again after a conflict.
    fn make(&self, live: &Live<'_>) -> Result<Made, Status>;

    /// Whether it may make an object where none is.
    fn creates(&self) -> bool {
        false
    }
}

impl<F: Fn(&Value) -> Result<Value, Status>> Make for F {
    fn make(&self, live: &Live<'_>) -> Result<Made, Status> {
        Ok(Made { object: self(live.object)?, managed: None })
    }
}

/// The versions of a resource.
struct Rows<'a, 'c> {
    context: &'a Context<'c>,
}

impl Rows<'_, '_> {
    fn row(&self, api_version: &str) -> Option<&Row> {
        let rows = self.context.engine.rows.iter().map(|row| &**row);
        let own = std::iter::once(&**self.context.row());
        let stored = &self.context.stored.kind;
        own.chain(rows).find(|row| {
            row.storage.as_ref().is_some_and(|storage| storage.kind == *stored)
                && row.api_version() == api_version
        })
    }
}

impl Versions for Rows<'_, '_> {
    fn type_in(&self, api_version: &str) -> Option<&'static Type> {
        let kind = &self.row(api_version)?.kind;
        types::by_kind(&kind.group, &kind.version, &kind.kind)
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Value {
        match (self.row(from), self.row(to)) {
            (Some(from), Some(to)) => {
                convert::to_served(to, convert::to_stored(from, object.clone()))
            }
            _ => object.clone(),
        }
    }
}

/// Who writes, as far as it said.
fn manager<'a>(context: &'a Context<'_>) -> &'a str {
    match context.request.params.field_manager.as_str() {
        "" => "unknown",
        name => name,
    }
}

/// Calls `then` with the writer that a request is.
fn as_writer<T>(
    context: &Context<'_>,
    subresource: Option<&str>,
    then: impl FnOnce(&Writer<'_>) -> T,
) -> T {
    then(&Writer {
        manager: manager(context),
        subresource: subresource.unwrap_or_default(),
        api_version: &context.row().api_version(),
        now: &time::seconds(context.now),
        reset: &reset::of(context.row(), subresource),
        versions: &Rows { context },
    })
}

/// Whose fields those of a new object are, given in its storage version.
///
/// # Errors
/// 422 if the object names managers that cannot be.
pub(super) fn created(context: &Context<'_>, object: &mut Value) -> Result<Bytes, Status> {
    track(context, None, None, object, &Bytes::new())
}

/// Who manages which fields after an update or patch; both objects are given in their storage version.
///
/// # Errors
/// 422 if the object names managers that cannot be.
pub(super) fn track(
    context: &Context<'_>,
    subresource: Option<&str>,
    old: Option<&Value>,
    new: &mut Value,
    managed: &Bytes,
) -> Result<Bytes, Status> {
    let given = metadata(new).remove("managedFields").filter(|_| subresource.is_none());
    let given = given.and_then(|given| given_managed(&given));
    if let Some(given) = &given {
        check_names(context, new, given)?;
    }
    // What nobody was said to manage while it changed stays so.
    if old.is_some() && given.as_ref().map_or(managed.is_empty(), Managed::is_empty) {
        return Ok(Bytes::new());
    }
    let empty = Value::Object(Map::new());
    let (old, given_or_read) = (old.unwrap_or(&empty), || match &given {
        Some(given) => given.clone(),
        None => Managed::read(managed),
    });
    let after = as_writer(context, subresource, |writer| {
        if context.row().served_as_stored() {
            return writer.update(old, new, given_or_read);
        }
        let served = |object: &Value| convert::to_served(context.row(), object.clone());
        writer.update(&served(old), &served(new), given_or_read)
    });
    Ok(match (after, given) {
        (Some(managed), _) | (None, Some(managed)) => managed.to_json().into(),
        (None, None) => managed.clone(),
    })
}

/// What a client says of managers: nothing if it is not to be heeded, an empty list to forget them all.
fn given_managed(given: &Value) -> Option<Managed> {
    match given {
        Value::Array(entries) if entries.is_empty() => Some(Managed::default()),
        Value::Array(entries) if entries.len() == 1 && entries[0] == Value::Object(Map::new()) => {
            Some(Managed::default())
        }
        other => Managed::of_value(other).ok().filter(|managed| !managed.is_empty()),
    }
}

fn check_names(context: &Context<'_>, object: &Value, managed: &Managed) -> Result<(), Status> {
    let path = FieldPath::new("metadata").child("managedFields");
    let mut errors: Vec<FieldError> = Vec::new();
    for (index, entry) in managed.entries.iter().enumerate() {
        let path = path.index(index);
        errors.extend(field_manager(&entry.manager, &path.child("manager").to_string()));
        if entry.subresource.len() > 256 {
            errors.push(FieldError::too_long(path.child("subresource"), 256));
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(context.invalid(meta_text(object, "name"), errors))
}

/// Puts into a parsed object who manages its fields.
pub(crate) fn restore(object: &mut Value, managed: &[u8]) {
    if let Ok(managed) = serde_json::from_slice::<Value>(managed) {
        metadata(object).insert("managedFields".to_owned(), managed);
    }
}

/// Whether two JSON texts of who manages what differ in times alone.
pub(super) fn same_but_times(one: &[u8], other: &[u8]) -> bool {
    Managed::read(one).same_but_times(&Managed::read(other))
}
