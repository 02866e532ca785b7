//! Bodies of requests as JSON, whatever encoding they came in. Refuses to know what they hold.

use bytes::Bytes;
use codec::protobuf;
use meta::Status;

use super::Context;

/// How much of a body errors show, in bytes.
const SHOWN: usize = 30;

/// JSON of a protobuf body. One that does not say what it holds is taken to be what is expected here.
pub(super) fn from_protobuf(context: &Context<'_>, body: &[u8]) -> Result<Bytes, Status> {
    let (version, kind) = expected(context);
    protobuf::to_json_as(body, (&version, &kind))
        .map(Bytes::from)
        .map_err(|error| refusal(&error, protobuf::declared(body), &kind, body))
}

/// JSON of a YAML body.
pub(super) fn from_yaml(context: &Context<'_>, body: &[u8]) -> Result<Bytes, Status> {
    codec::yaml::to_json(body)
        .map(Bytes::from)
        .map_err(|error| refusal(&error, None, &expected(context).1, body))
}

/// `apiVersion` and `kind` of what a body here should hold: options of a deletion, or an object.
fn expected(context: &Context<'_>) -> (String, String) {
    if context.info.verb().starts_with("delete") {
        return ("v1".to_owned(), "DeleteOptions".to_owned());
    }
    let part = context.row.subresource(context.info.subresource());
    let kind = part.map_or(&context.row.kind, |part| &part.kind);
    (kind.api_version(), kind.kind.clone())
}

/// What is wrong with a body that may say what it holds.
fn refusal(
    error: &dyn std::fmt::Display,
    declared: Option<(String, String)>,
    expected: &str,
    body: &[u8],
) -> Status {
    Status::bad_request(match declared {
        Some((version, kind)) if !kind.is_empty() => {
            format!("{kind} in version {version:?} cannot be handled as a {expected}: {error}")
        }
        _ => {
            let shown: String = body.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
            let more = if body.len() > SHOWN { " ..." } else { "" };
            format!(
                "the object provided is unrecognized (must be of type {expected}): {error} ({shown}{more})"
            )
        }
    })
}
