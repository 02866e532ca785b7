//! Stage seven: the rules of the kind and of metadata.

use meta::{FieldError, FieldErrors, GroupVersionKind, Status};
use serde_json::Value;

use super::{Context, metadata};
use crate::object::meta_text;

/// Checks a new object.
pub(super) fn create(context: &Context<'_>, object: &Value) -> Result<(), Status> {
    let row = &context.stored;
    let kind = kind(context);
    let check_name = |name: &str, prefix| schema::rules::check_name(kind, name, prefix);
    let mut errors = metadata::validate(object, row.namespaced(), &check_name);
    errors.extend(schema::rules::validate(kind, object));
    errors.extend(row.strategy.validate_create(object));
    refuse(context, object, errors)?;
    context.warn(schema::rules::warnings(kind, object, None));
    Ok(())
}

/// Checks a changed object.
pub(super) fn update(context: &Context<'_>, object: &Value, old: &Value) -> Result<(), Status> {
    let row = &context.stored;
    let mut errors = metadata::validate_update(object, old);
    errors.extend(schema::rules::validate_update(kind(context), object, old));
    errors.extend(row.strategy.validate_update(object, old));
    refuse(context, object, errors)?;
    context.warn(schema::rules::warnings(kind(context), object, Some(old)));
    Ok(())
}

/// Checks an object whose status changed.
pub(super) fn status(context: &Context<'_>, object: &Value, old: &Value) -> Result<(), Status> {
    let mut errors = metadata::validate_update(object, old);
    let kind = &context.stored.kind;
    errors.extend(schema::rules::validate_status(kind, object, old));
    refuse(context, object, errors)?;
    context.warn(schema::rules::status_warnings(kind, object));
    Ok(())
}

/// Checks a certificate request about which somebody decides.
pub(super) fn approval(context: &Context<'_>, object: &Value, old: &Value) -> Result<(), Status> {
    let mut errors = metadata::validate_update(object, old);
    errors.extend(schema::rules::validate_approval(object, old));
    refuse(context, object, errors)
}

/// Whose rules hold: those of the stored kind, unless another group serves it with rules of its own.
fn kind<'a>(context: &'a Context<'_>) -> &'a GroupVersionKind {
    let (served, stored) = (&context.row().kind, &context.stored.kind);
    if served.group == stored.group { stored } else { served }
}

/// Checks a pod of which a part changed that an update may not change.
pub(super) fn part(
    context: &Context<'_>,
    object: &Value,
    old: &Value,
    rules: fn(&Value, &Value) -> Vec<FieldError>,
) -> Result<(), Status> {
    let mut errors = metadata::validate_update(object, old);
    errors.extend(rules(object, old));
    refuse(context, object, errors)
}

fn refuse(context: &Context<'_>, object: &Value, errors: FieldErrors) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    let name = match meta_text(object, "name") {
        "" => meta_text(object, "generateName"),
        name => name,
    };
    Err(context.invalid(name, errors.into()))
}
