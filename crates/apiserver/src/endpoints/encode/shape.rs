//! Objects in other forms than their own: tables and partial metadata, as JSON.

use bytes::Bytes;
use codec::{Form, ListMeta, table::Include};
use jiff::Timestamp;
use meta::Status;

use super::{kind, misfit};
use crate::endpoints::Context;

/// How much of each object a table's rows carry.
///
/// # Errors
/// 400 for what nobody knows, where a table is asked for.
pub(super) fn include(context: &Context<'_>, form: Form) -> Result<Include, Status> {
    let asked = context.query.get("includeObject").unwrap_or_default();
    match (Include::parse(asked), form) {
        (Some(include), _) => Ok(include),
        (None, Form::Table(_)) => Err(Status::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {asked:?}: must be 'Metadata', 'Object', 'None', or empty"
        ))),
        (None, _) => Ok(Include::default()),
    }
}

/// One object in the form wanted.
pub(super) fn object(context: &Context<'_>, form: Form, bytes: &Bytes) -> Result<Bytes, Status> {
    let shaped = match form {
        Form::Object => return Ok(bytes.clone()),
        Form::PartialList(_) => return Err(misfit(&context.row, form, false)),
        Form::Partial(version) => codec::partial::partial(bytes, version),
        Form::Table(version) => {
            let meta = ListMeta { resource_version: revision_of(bytes), ..ListMeta::default() };
            let include = include(context, form)?;
            let now = Timestamp::now();
            codec::table::table(kind(context), &meta, [bytes.as_ref()], include, version, true, now)
        }
    };
    shaped.map(Bytes::from).map_err(Status::internal)
}

/// The revision of an object, without parsing everything.
pub(super) fn revision_of(object: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Head {
        metadata: Metadata,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        #[serde(default)]
        resource_version: String,
    }
    serde_json::from_slice(object)
        .map(|head: Head| head.metadata.resource_version)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_found_without_parsing_everything() {
        assert_eq!(
            revision_of(br#"{"kind":"X","metadata":{"resourceVersion":"7","name":"a"}}"#),
            "7"
        );
        assert_eq!(revision_of(b"{}"), "");
    }
}
