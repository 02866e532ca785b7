//! Watches: events in the form and encoding wanted. What all watchers see alike is made once.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use codec::{Accepted, Encoding, Form, ListMeta, MetaVersion, protobuf, table::Include};
use futures::StreamExt;
use http::Response;
use jiff::Timestamp;
use meta::Status;
use registry::{EventType, Row, WatchEvent, WatchStream};
use serve::Body;

use super::{compress, partial, shape};
use crate::{
    endpoints::Context,
    flow::Watching,
    metrics::{Observed, scope},
    server::Core,
};

/// Answers with a stream of events. It ends with the server, so that clients reconnect to another.
pub(super) fn response(
    core: &Core,
    context: &Context<'_>,
    wants: Accepted,
    events: WatchStream,
) -> Result<Response<Body>, Status> {
    let observed = Observed {
        row: Some(&context.row),
        subresource: context.info.subresource(),
        verb: "WATCH",
        scope: scope(context.info),
        dry_run: false,
    };
    let counted = core.metrics.stream(&observed);
    let seen = watching(core, context);
    let shutdown = core.shutdown.clone();
    let events = events.take_until(async move { shutdown.cancelled().await });
    let include = shape::include(context, wants.form)?;
    let mut shaper = Shaper { row: context.row.clone(), wants, include, first: true };
    let frames = events.map(move |event| {
        let _ = &seen;
        counted.event();
        Ok::<_, Infallible>(shaper.frame(&event))
    });
    Ok(compress::streamed(Body::stream(frames), wants.encoding.stream_type()))
}

/// Counts the watch among those that a write is sent to. Of the pods of one node it sees few.
fn watching(core: &Core, context: &Context<'_>) -> Option<Watching> {
    let selector = context.query.get("fieldSelector").unwrap_or_default();
    let node = selector.contains("spec.nodeName=") && context.info.resource() == "pods";
    let (namespace, name) = (context.info.namespace(), context.info.authorized_name());
    (!node).then(|| core.flow.watchers.watch(&context.row, namespace, name))
}

/// Writes the events of one watch.
struct Shaper {
    row: Arc<Row>,
    wants: Accepted,
    include: Include,
    first: bool,
}

impl Shaper {
    fn frame(&mut self, event: &WatchEvent) -> Bytes {
        let binary = self.wants.encoding == Encoding::Protobuf;
        match (self.wants.form, partial(self.wants.form)) {
            (Form::Object, _) if !binary => event.frame.clone(),
            _ if event.event_type == EventType::Error && !binary => event.frame.clone(),
            // Columns are described once, with the first event: no two watchers see the same.
            (Form::Table(version), _) => {
                let made = self.table(event, version).map_err(|error| error.to_string());
                framed(event, made, false)
            }
            (_, Some(version)) if event.event_type != EventType::Error => {
                event.form(number(Some(version), binary), || {
                    let json = codec::partial::partial(&event.object, version);
                    framed(event, json.map_err(|error| error.to_string()), binary)
                })
            }
            _ => event
                .form(number(None, binary), || framed(event, Ok(event.object.to_vec()), binary)),
        }
    }

    fn table(&mut self, event: &WatchEvent, version: MetaVersion) -> serde_json::Result<Vec<u8>> {
        let headers = std::mem::replace(&mut self.first, false);
        let meta =
            ListMeta { resource_version: shape::revision_of(&event.object), ..ListMeta::default() };
        let (objects, now) = ([event.object.as_ref()], Timestamp::now());
        codec::table::table(&self.row.kind, &meta, objects, self.include, version, headers, now)
    }
}

/// The number of a form that watchers share.
fn number(partial: Option<MetaVersion>, binary: bool) -> usize {
    match (partial, binary) {
        (None, _) => 0,
        (Some(MetaVersion::V1), false) => 1,
        (Some(MetaVersion::V1), true) => 2,
        (Some(MetaVersion::V1Beta1), false) => 3,
        (Some(MetaVersion::V1Beta1), true) => 4,
    }
}

/// An event around JSON, in the encoding wanted. A failure to write it is what the client gets to see.
fn framed(event: &WatchEvent, json: Result<Vec<u8>, String>, binary: bool) -> Bytes {
    let name = event.event_type.as_str();
    let made = json.and_then(|json| {
        if !binary {
            return Ok(codec::frame::frame(name, &json));
        }
        let object = protobuf::object(&json).map_err(|error| error.to_string())?;
        Ok(protobuf::frame(name, &object))
    });
    let made = made.unwrap_or_else(|error| {
        tracing::error!(%error, "an event cannot be shown in the form asked for");
        let (name, status) = (EventType::Error.as_str(), Status::internal(error).to_json());
        match protobuf::object(&status) {
            Ok(object) if binary => protobuf::frame(name, &object),
            _ => codec::frame::frame(name, &status),
        }
    });
    made.into()
}
