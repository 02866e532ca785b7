//! Stage two, for patches: a patch body on a stored object.

use bytes::Bytes;
use meta::{GroupVersionKind, Status};
use schema::PatchError;
use serde_json::Value;

use super::ownership::{self, Live, Made, Make};
use super::{Context, decode};
use crate::request::PatchType;

/// A patch whose body was read once and can be applied again after a conflict.
pub(crate) struct Prepared<'a, 'c> {
    context: &'a Context<'c>,
    patch: PatchType,
    /// Whether it may say who manages which fields; most patches do not, and then need not see it.
    manages: bool,
    /// The body of a JSON patch, or the parsed one of a merge.
    bytes: Bytes,
    value: Value,
}

impl<'a, 'c> Prepared<'a, 'c> {
    /// Reads the body.
    ///
    /// # Errors
    /// 400 for what is no patch.
    pub(crate) fn new(
        context: &'a Context<'c>,
        patch: PatchType,
        body: &Bytes,
    ) -> Result<Self, Status> {
        let manages = memmem(body, b"managedFields");
        if patch == PatchType::Json {
            let bytes = body.clone();
            return Ok(Self { context, patch, manages, bytes, value: Value::Null });
        }
        // Upstream says what it is doing of one kind of patch only.
        let doing = if patch == PatchType::Merge { "error decoding patch: " } else { "" };
        let (value, duplicates) = schema::decode::parse(body)
            .map_err(|error| Status::bad_request(format!("{doing}{error}")))?;
        match context.request.params.field_validation {
            schema::FieldValidation::Ignore => {}
            schema::FieldValidation::Warn => context.warn(duplicates),
            schema::FieldValidation::Strict => {
                if let Some(text) = schema::decode::strict_error(&duplicates) {
                    return Err(Status::bad_request(text));
                }
            }
        }
        if !value.is_object() {
            let problem = schema::decode::mismatch(&value, "map[string]interface {}");
            return Err(Status::bad_request(format!("{doing}{problem}")));
        }
        Ok(Self { context, patch, manages, bytes: Bytes::new(), value })
    }

    /// The object that the patch makes of `old`, decoded anew.
    ///
    /// # Errors
    /// 400 and 422 for patches that do not apply or whose outcome is no object of the kind.
    pub(crate) fn apply(
        &self,
        mut object: Value,
        kind: &GroupVersionKind,
    ) -> Result<Value, Status> {
        let context = self.context;
        match self.patch {
            PatchType::Json => schema::json_patch(&mut object, &self.bytes),
            PatchType::Merge => {
                schema::merge_patch(&mut object, &self.value);
                Ok(())
            }
            PatchType::Strategic => {
                match schema::types::by_kind(&kind.group, &kind.version, &kind.kind) {
                    Some(of) => schema::strategic_merge_patch(of, &mut object, self.value.clone()),
                    None => return Err(unsupported(self.patch)),
                }
            }
            PatchType::Apply => return Err(unsupported(self.patch)),
        }
        .map_err(refuse)?;
        let decoded = schema::decode_value(kind, &object, context.request.params.field_validation)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        context.warn(decoded.warnings);
        decode::check_name(context, &decoded.value)?;
        Ok(decoded.value)
    }
}

impl Make for Prepared<'_, '_> {
    fn make(&self, live: &Live<'_>) -> Result<Made, Status> {
        let mut object = live.object.clone();
        if self.manages {
            ownership::restore(&mut object, live.managed);
        }
        Ok(Made { object: self.apply(object, &self.context.row().kind)?, managed: None })
    }
}

/// Whether bytes occur in others.
fn memmem(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Reads and applies a patch in one step, for actions on other shapes than the resource's own.
pub(crate) fn apply(
    context: &Context<'_>,
    patch: PatchType,
    body: &Bytes,
    old: &Value,
    kind: &GroupVersionKind,
) -> Result<Value, Status> {
    Prepared::new(context, patch, body)?.apply(old.clone(), kind)
}

fn unsupported(patch: PatchType) -> Status {
    let media = patch.media_type();
    Status::new(
        415,
        "UnsupportedMediaType",
        format!(
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json; got {media}"
        ),
    )
}

fn refuse(error: PatchError) -> Status {
    match error {
        PatchError::Malformed(text) => Status::bad_request(text),
        PatchError::TooMany(_) => Status::new(413, "RequestEntityTooLarge", error.to_string()),
        // Upstream's words: why the patch failed stays with the server, and clients compare this message.
        PatchError::Failed(_) => {
            let message = "the server rejected our request due to an error in our request";
            Status::new(422, "Invalid", message).with_causes(Vec::new())
        }
    }
}
