//! Stage one: bytes to an object of the expected kind, in the right namespace.

use meta::{GroupVersionKind, Status};
use serde_json::Value;

use super::Context;
use crate::object::{meta_text, metadata};

/// Decodes a body that must hold an object of `kind`.
///
/// # Errors
/// 400 with Kubernetes' words for what is no such object.
pub(crate) fn decode(
    context: &Context<'_>,
    body: &[u8],
    kind: &GroupVersionKind,
) -> Result<Value, Status> {
    let decoded = schema::decode(kind, body, context.request.params.field_validation)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    context.warn(decoded.warnings);
    let mut object = decoded.value;
    match_namespace(context, &mut object)?;
    Ok(object)
}

/// Parses the options that a deletion may carry as its body; `Null` where there is none.
pub(crate) fn decode_options(body: &[u8]) -> Result<Value, Status> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    let options: Value = serde_json::from_slice(body)
        .map_err(|error| Status::bad_request(format!("couldn't decode the options: {error}")))?;
    match options["kind"].as_str() {
        None | Some("" | "DeleteOptions") if options.is_object() => Ok(options),
        _ => Err(Status::bad_request("the body of a deletion must be DeleteOptions")),
    }
}

/// Sets the namespace of the request on the object, which may leave it out but not contradict.
pub(super) fn match_namespace(context: &Context<'_>, object: &mut Value) -> Result<(), Status> {
    let given = meta_text(object, "namespace");
    match context.namespace().filter(|_| context.row().namespaced()) {
        None => {
            metadata(object).remove("namespace");
        }
        Some(namespace) if given.is_empty() => {
            metadata(object).insert("namespace".to_owned(), namespace.into());
        }
        Some(namespace) if given == namespace => {}
        Some(_) => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// An updated object must carry the name and namespace of the path.
pub(crate) fn check_name(context: &Context<'_>, object: &Value) -> Result<(), Status> {
    let (given, name) = (meta_text(object, "name"), context.name()?);
    if given.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    if given != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let given = meta_text(object, "namespace");
    match context.namespace() {
        Some(namespace) if !given.is_empty() && given != namespace => {
            Err(Status::bad_request(format!(
                "the namespace of the object ({given}) does not match the namespace on the request ({namespace})"
            )))
        }
        _ => Ok(()),
    }
}
