//! The last stage: what was stored, as the client sees it.

use meta::{Revision, Status};
use serde_json::{Value, json};

use super::Context;
use crate::convert;
use crate::object::{Object, complete};
use crate::outcome::Outcome;

/// An object that was stored or found.
pub(crate) fn object_outcome(context: &Context<'_>, code: u16, object: &Object) -> Outcome {
    Outcome::Object {
        code,
        bytes: object.to_json(context.row()),
        identity: Some(object.identity()),
        warnings: context.take_warnings(),
    }
}

/// An object that was not stored (a dry run) or is no longer (a deletion), given in its storage
/// version.
pub(crate) fn value_outcome(
    context: &Context<'_>,
    code: u16,
    object: Value,
    revision: Option<Revision>,
) -> Outcome {
    let mut object = convert::to_served(context.row(), object);
    complete(context.row(), revision.unwrap_or_default(), &mut object);
    if revision.is_none() {
        crate::object::metadata(&mut object).remove("resourceVersion");
    }
    Outcome::Object {
        code,
        bytes: object.to_string().into(),
        identity: None,
        warnings: context.take_warnings(),
    }
}

/// The `Status` that most deletions answer with.
pub(crate) fn status_outcome(context: &Context<'_>, code: u16, name: &str, uid: &str) -> Outcome {
    let mut details = json!({"name": name, "kind": context.row().resource.resource});
    if !uid.is_empty() {
        details["uid"] = uid.into();
    }
    if !context.row().resource.group.is_empty() {
        details["group"] = context.row().resource.group.as_str().into();
    }
    success(context, code, details)
}

/// A `Status` of success.
pub(crate) fn success(context: &Context<'_>, code: u16, details: Value) -> Outcome {
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
    });
    if !details.is_null() {
        status["details"] = details;
    }
    if code != 200 {
        status["code"] = code.into();
    }
    Outcome::Status { code, bytes: status.to_string().into(), warnings: context.take_warnings() }
}

/// A conflict of resource versions.
pub(crate) fn modified(context: &Context<'_>, name: &str) -> Status {
    Status::modified(&context.resource(), name)
}
