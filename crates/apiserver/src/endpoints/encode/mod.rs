//! From the engine's outcome to a response in the form and encoding the client wants.
//!
//! The usual case, JSON as stored, is passed through untouched. Refuses to know how outcomes come about.

mod cache;
mod compress;
mod indent;
mod list;
mod shape;
mod watch;

use bytes::Bytes;
use codec::{Accepted, Encoding, Form, MetaVersion, Offer, protobuf};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use meta::Status;
use registry::{Identity, Outcome, Row};
use serde_json::Value;
use serve::Body;

use super::{Context, respond};
use crate::{request::Query, server::Core};

pub(crate) use cache::Cache;

/// What the client accepts, by its headers and the `pretty` parameter.
pub(super) fn wants(context: &Context<'_>) -> Result<Accepted, Status> {
    let accept = text(context.headers, header::ACCEPT);
    let pretty = pretty(context.headers, context.query);
    if accept == "application/json" {
        return Ok(Accepted { pretty, ..Accepted::PLAIN });
    }
    let offer = Offer {
        protobuf: accept.contains("protobuf") && serves_protobuf(context),
        forms: true,
        watch: context.info.verb() == "watch",
    };
    let wants = codec::media::accept(Some(accept), offer)?;
    Ok(Accepted { pretty: pretty || wants.pretty, ..wants })
}

/// The kind that is answered: a subresource may have one of its own, such as Scale.
fn kind<'a>(context: &'a Context<'_>) -> &'a meta::GroupVersionKind {
    let part = context.row.subresource(context.info.subresource());
    part.map_or(&context.row.kind, |part| &part.kind)
}

fn serves_protobuf(context: &Context<'_>) -> bool {
    let kind = kind(context);
    protobuf::serves(&kind.api_version(), &kind.kind)
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Whether people read the answer: they say so, or use a tool that shows answers as they come.
pub(crate) fn pretty(headers: &HeaderMap, query: &Query) -> bool {
    match query.get("pretty").filter(|value| !value.is_empty()) {
        Some(value) => matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"),
        None => {
            let agent = text(headers, header::USER_AGENT);
            ["curl", "Wget", "Mozilla/5.0"].iter().any(|tool| agent.starts_with(tool))
        }
    }
}

fn is_plain(wants: Accepted) -> bool {
    wants == Accepted::PLAIN
}

/// Makes the response.
pub(super) async fn outcome(
    core: &Core,
    context: &Context<'_>,
    wants: Accepted,
    outcome: Outcome,
) -> Result<Response<Body>, Status> {
    match outcome {
        Outcome::Object { code, bytes, identity, warnings } => {
            let mut response = if wants.form == Form::Object {
                let bytes = encoded(core, &context.row, wants, bytes, identity)?;
                finished(context.headers, wants.encoding, status(code), bytes)
            } else {
                let bytes = shape::object(context, wants.form, &bytes)?;
                syntax(context.headers, wants, status(code), bytes)?
            };
            respond::warn(&mut response, &warnings);
            Ok(response)
        }
        Outcome::Status { code, bytes, warnings } => {
            let mut response = syntax(context.headers, wants, status(code), bytes)?;
            respond::warn(&mut response, &warnings);
            Ok(response)
        }
        Outcome::List(list) => list::response(core, context, wants, list).await,
        Outcome::Watch(events) => watch::response(core, context, wants, events),
    }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::OK)
}

/// An object in the encoding wanted. Protobuf of a stored object is made once for a while.
fn encoded(
    core: &Core,
    row: &Row,
    wants: Accepted,
    bytes: Bytes,
    identity: Option<Identity>,
) -> Result<Bytes, Status> {
    let (Encoding::Protobuf, Some(identity)) = (wants.encoding, identity) else {
        return written(wants, bytes);
    };
    let (version, kind) = (row.api_version(), &row.kind.kind);
    let raw = core.transcoded.get_or_make(row, identity, || {
        protobuf::item(&bytes, &version, kind).map(Bytes::from).map_err(Status::internal)
    })?;
    Ok(protobuf::envelope(&version, kind, &raw).into())
}

/// JSON of an object in the syntax wanted.
fn written(wants: Accepted, bytes: Bytes) -> Result<Bytes, Status> {
    Ok(match wants.encoding {
        Encoding::Json if wants.pretty => indent::whole(&bytes).into(),
        Encoding::Json => bytes,
        Encoding::Yaml => codec::yaml::from_json(&bytes).map_err(Status::internal)?.into(),
        Encoding::Protobuf => protobuf::object(&bytes).map_err(Status::internal)?.into(),
    })
}

/// A response of JSON in the syntax wanted.
fn syntax(
    headers: &HeaderMap,
    wants: Accepted,
    code: StatusCode,
    bytes: Bytes,
) -> Result<Response<Body>, Status> {
    Ok(finished(headers, wants.encoding, code, written(wants, bytes)?))
}

/// A response of finished bytes, compressed where that pays.
fn finished(
    headers: &HeaderMap,
    encoding: Encoding,
    code: StatusCode,
    bytes: Bytes,
) -> Response<Body> {
    let long = bytes.len() > compress::THRESHOLD && respond::accepts_gzip(headers);
    if let Some(packed) = long.then(|| respond::gzip(&bytes)).and_then(Result::ok) {
        let mut response = respond::bytes(code, encoding.media_type(), packed);
        respond::mark_gzip(&mut response);
        return response;
    }
    respond::bytes(code, encoding.media_type(), bytes)
}

/// A response of a value in the syntax wanted.
pub(super) fn value(
    wants: Accepted,
    code: StatusCode,
    value: &Value,
) -> Result<Response<Body>, Status> {
    let bytes = serde_json::to_vec(value).map_err(Status::internal)?;
    syntax(&HeaderMap::new(), wants, code, bytes.into())
}

/// How a client wants to be told of a failure: known before anything else is of its request.
pub(crate) struct Teller {
    accept: Option<HeaderValue>,
    pretty: bool,
}

impl Teller {
    /// Reads it off a request.
    pub(crate) fn of(headers: &HeaderMap, query: &Query) -> Self {
        Self { accept: headers.get(header::ACCEPT).cloned(), pretty: pretty(headers, query) }
    }

    /// A failure, as a `Status` in an encoding that the client accepts, or else as indented JSON.
    pub(crate) fn failure(&self, status: &Status) -> Response<Body> {
        let accept = self.accept.as_ref().and_then(|value| value.to_str().ok());
        let wants = match codec::media::accept(accept, Offer::STATUS) {
            Ok(wants) => Accepted { pretty: self.pretty || wants.pretty, ..wants },
            Err(_) => Accepted { pretty: true, ..Accepted::PLAIN },
        };
        let mut response = respond::failure(status);
        if is_plain(wants) {
            return response;
        }
        if let Ok(bytes) = written(wants, status.to_json().into()) {
            let media = HeaderValue::from_static(wants.encoding.media_type());
            response.headers_mut().insert(header::CONTENT_TYPE, media);
            *response.body_mut() = Body::full(bytes);
        }
        response
    }
}

/// The refusal of a form that does not fit what was asked for.
fn misfit(row: &Row, form: Form, list: bool) -> Status {
    // Errors name the type with which the reference implementation keeps the kind in memory.
    let package = match row.kind.group.split('.').next().unwrap_or_default() {
        "" | "events" => "core",
        package => package,
    };
    let (asked, what) = match form {
        Form::Partial(_) => ("PartialObjectMetadata", "a list"),
        _ => ("PartialObjectMetadataList", "not a list"),
    };
    let suffix = if list { "List" } else { "" };
    Status::new(
        406,
        "NotAcceptable",
        format!(
            "you requested {asked}, but the requested object is {what} (*{package}.{}{suffix})",
            row.kind.kind
        ),
    )
}

/// The version of the form, where objects are reduced to their metadata.
fn partial(form: Form) -> Option<MetaVersion> {
    match form {
        Form::Partial(version) | Form::PartialList(version) => Some(version),
        Form::Object | Form::Table(_) => None,
    }
}
