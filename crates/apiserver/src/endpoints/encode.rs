//! From the engine's outcome to a response in the form the client wants.
//!
//! The usual case, JSON as stored, is passed through untouched. Refuses to know how outcomes come about.

use std::{convert::Infallible, io::Write as _, sync::Arc};

use bytes::Bytes;
use codec::{Accepted, Encoding, Form, ListMeta, table::Include};
use flate2::{Compression, write::GzEncoder};
use futures::{StreamExt, stream};
use http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use meta::Status;
use registry::{EventType, List, Outcome, Row, WatchEvent, WatchStream};
use serde_json::Value;
use serve::Body;

use super::{Context, respond};
use crate::{
    metrics::Observed,
    server::{Core, scope},
};

/// What the client accepts, by its headers and the `pretty` parameter.
pub(super) fn wants(context: &Context<'_>) -> Result<Accepted, Status> {
    let accept = context.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let mut wants = codec::media::accept(accept, context.info.verb() == "watch")?;
    wants.pretty |=
        context.query.get("pretty").is_some_and(|value| matches!(value, "" | "1" | "true"));
    Ok(wants)
}

fn is_plain(wants: Accepted) -> bool {
    wants == Accepted { encoding: Encoding::Json, form: Form::Object, pretty: false }
}

/// Makes the response.
pub(super) fn outcome(
    core: &Core,
    context: &Context<'_>,
    wants: Accepted,
    outcome: Outcome,
) -> Result<Response<Body>, Status> {
    match outcome {
        Outcome::Object { code, bytes, warnings } => {
            let bytes = if is_plain(wants) { bytes } else { shaped(context, wants.form, bytes)? };
            finished(wants, code, bytes, &warnings)
        }
        Outcome::Status { code, bytes, warnings } => finished(wants, code, bytes, &warnings),
        Outcome::List(list) if is_plain(wants) => Ok(chunked(context, list)),
        Outcome::List(list) => {
            let bytes = shaped_list(context, wants.form, list)?;
            json(wants, StatusCode::OK, bytes).map(|response| compress(context, wants, response))
        }
        Outcome::Watch(events) => Ok(watch(core, context, wants, events)),
    }
}

fn finished(
    wants: Accepted,
    code: u16,
    bytes: Bytes,
    warnings: &[String],
) -> Result<Response<Body>, Status> {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
    let mut response = json(wants, code, bytes)?;
    respond::warn(&mut response, warnings);
    Ok(response)
}

/// A response of a value in the syntax wanted.
pub(super) fn value(
    wants: Accepted,
    code: StatusCode,
    value: &Value,
) -> Result<Response<Body>, Status> {
    json(wants, code, serde_json::to_vec(value).map_err(Status::internal)?.into())
}

/// A response of JSON in the syntax wanted.
fn json(wants: Accepted, code: StatusCode, bytes: Bytes) -> Result<Response<Body>, Status> {
    match wants.encoding {
        Encoding::Json if wants.pretty => {
            let value: Value = serde_json::from_slice(&bytes).map_err(Status::internal)?;
            let mut text = serde_json::to_vec_pretty(&value).map_err(Status::internal)?;
            text.push(b'\n');
            Ok(respond::json(code, text))
        }
        Encoding::Json => Ok(respond::json(code, bytes)),
        Encoding::Yaml => {
            let text = codec::yaml::from_json(&bytes).map_err(Status::internal)?;
            Ok(respond::bytes(code, Encoding::Yaml.media_type(), text))
        }
    }
}

/// How much of each object a table's rows carry.
fn include(context: &Context<'_>) -> Include {
    context.query.get("includeObject").and_then(Include::parse).unwrap_or_default()
}

/// An object in the form wanted.
fn shaped(context: &Context<'_>, form: Form, bytes: Bytes) -> Result<Bytes, Status> {
    let shaped = match form {
        Form::Object => return Ok(bytes),
        Form::Partial(version) => codec::partial::partial(&bytes, version),
        Form::Table(version) => {
            let meta = ListMeta { resource_version: revision_of(&bytes), ..ListMeta::default() };
            let objects = [bytes.as_ref()];
            // A subresource may be of a kind of its own, such as Scale.
            let part = context.row.subresource(context.info.subresource());
            let kind = part.map_or(&context.row.kind, |part| &part.kind);
            let now = Timestamp::now();
            codec::table::table(kind, &meta, objects, include(context), version, true, now)
        }
    };
    shaped.map(Bytes::from).map_err(Status::internal)
}

/// A list in the form wanted.
fn shaped_list(context: &Context<'_>, form: Form, list: List) -> Result<Bytes, Status> {
    let (version, table) = match form {
        Form::Object => return Ok(list.to_json()),
        Form::Partial(version) => (version, false),
        Form::Table(version) => (version, true),
    };
    let meta = ListMeta {
        resource_version: list.revision.to_string(),
        continue_token: list.continue_token.clone(),
        remaining_item_count: list.remaining,
    };
    let row = &context.row;
    let objects: Vec<Bytes> = list.items.iter().map(|item| item.to_json(row)).collect();
    let objects = objects.iter().map(AsRef::as_ref);
    let shaped = if table {
        codec::table::table(
            &row.kind,
            &meta,
            objects,
            include(context),
            version,
            true,
            Timestamp::now(),
        )
    } else {
        codec::partial::partial_list(&meta, objects, version)
    };
    shaped.map(Bytes::from).map_err(Status::internal)
}

fn revision_of(object: &[u8]) -> String {
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

/// Compresses a whole body if it is long and the client likes.
fn compress(context: &Context<'_>, wants: Accepted, response: Response<Body>) -> Response<Body> {
    let length = http_body::Body::size_hint(response.body()).exact().unwrap_or(0);
    let long = usize::try_from(length).is_ok_and(|length| length >= respond::WORTH_COMPRESSING);
    if !long || wants.encoding != Encoding::Json || !respond::accepts_gzip(context.headers) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let body = http_body_util::BodyStream::new(body)
        .filter_map(async |frame| frame.ok()?.into_data().ok());
    let body = body.map(move |chunk| respond::gzip(&chunk));
    let mut response = Response::from_parts(parts, Body::stream(body));
    respond::mark_gzip(&mut response);
    response
}

/// A list as stored: one body if it is short, else a stream of pieces, compressed if the client likes.
fn chunked(context: &Context<'_>, list: List) -> Response<Body> {
    let mut chunks = list.chunks();
    let first = chunks.next().unwrap_or_default();
    let Some(second) = chunks.next() else { return respond::json(StatusCode::OK, first) };
    let chunks = [first, second].into_iter().chain(chunks);
    if !respond::accepts_gzip(context.headers) {
        return streamed(stream::iter(chunks.map(Ok::<_, Infallible>)));
    }
    let mut response = streamed(stream::iter(compressed(chunks)));
    respond::mark_gzip(&mut response);
    response
}

fn streamed<S, E>(chunks: S) -> Response<Body>
where
    S: futures::Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<serve::BoxError> + 'static,
{
    let mut response = Response::new(Body::stream(chunks));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(respond::JSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Compresses piece by piece.
fn compressed(
    chunks: impl Iterator<Item = Bytes> + Send,
) -> impl Iterator<Item = std::io::Result<Bytes>> + Send {
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut chunks = chunks.fuse();
    std::iter::from_fn(move || {
        loop {
            let Some(chunk) = chunks.next() else {
                return encoder.take().map(|encoder| encoder.finish().map(Bytes::from));
            };
            let writer = encoder.as_mut()?;
            if let Err(error) = writer.write_all(&chunk) {
                encoder = None;
                return Some(Err(error));
            }
            let ready = std::mem::take(writer.get_mut());
            if !ready.is_empty() {
                return Some(Ok(ready.into()));
            }
        }
    })
}

/// A stream of events. It ends with the server, so that clients reconnect to another.
fn watch(
    core: &Core,
    context: &Context<'_>,
    wants: Accepted,
    events: WatchStream,
) -> Response<Body> {
    let observed = Observed {
        row: Some(&context.row),
        subresource: context.info.subresource(),
        verb: "watch",
        scope: scope(context.info),
        dry_run: false,
    };
    let counted = core.metrics.stream(&observed);
    let shutdown = core.shutdown.clone();
    let events = events.take_until(async move { shutdown.cancelled().await });
    if wants.form == Form::Object {
        return streamed(events.map(move |event| {
            counted.event();
            Ok::<_, Infallible>(event.frame)
        }));
    }
    let mut shaper = Shaper {
        row: context.row.clone(),
        form: wants.form,
        include: include(context),
        first: true,
    };
    streamed(events.map(move |event| {
        let _counted = &counted;
        Ok::<_, Infallible>(shaper.frame(&event))
    }))
}

/// Shapes the objects of a watch one after the other.
struct Shaper {
    row: Arc<Row>,
    form: Form,
    include: Include,
    first: bool,
}

impl Shaper {
    /// The frame of an event. Failures are passed on as they are.
    fn frame(&mut self, event: &WatchEvent) -> Bytes {
        let shaped = match self.form {
            _ if event.event_type == EventType::Error => return event.frame.clone(),
            Form::Object => return event.frame.clone(),
            Form::Partial(version) => codec::partial::partial(&event.object, version),
            Form::Table(version) => {
                // Columns are described once, with the first event.
                let headers = std::mem::replace(&mut self.first, false);
                let meta = ListMeta {
                    resource_version: revision_of(&event.object),
                    ..ListMeta::default()
                };
                let objects = [event.object.as_ref()];
                let now = Timestamp::now();
                codec::table::table(
                    &self.row.kind,
                    &meta,
                    objects,
                    self.include,
                    version,
                    headers,
                    now,
                )
            }
        };
        match shaped {
            Ok(shaped) => codec::frame::frame(event.event_type.as_str(), &shaped).into(),
            Err(error) => {
                tracing::error!(%error, "an event cannot be shown in the form asked for");
                event.frame.clone()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn compressed_pieces_make_one_whole() {
        let chunks = (0..50).map(|number| Bytes::from(format!("{number:>9000}")));
        let expected: Vec<u8> = chunks.clone().flat_map(|chunk| chunk.to_vec()).collect();
        let packed: Vec<u8> =
            compressed(chunks).flat_map(|piece| piece.expect("compresses").to_vec()).collect();
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).expect("gzip");
        assert!(packed.len() < expected.len() / 4 && unpacked == expected);
    }

    #[test]
    fn revisions_are_found_without_parsing_everything() {
        assert_eq!(
            revision_of(br#"{"kind":"X","metadata":{"resourceVersion":"7","name":"a"}}"#),
            "7"
        );
        assert_eq!(revision_of(b"{}"), "");
    }
}
