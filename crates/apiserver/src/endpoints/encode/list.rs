//! Lists: as stored piece by piece, or reduced, tabulated, transcoded.

use bytes::Bytes;
use codec::{Accepted, Encoding, Form, ListMeta, protobuf, table::Include};
use futures::stream;
use http::{Response, StatusCode};
use jiff::Timestamp;
use meta::Status;
use registry::List;
use serve::Body;

use super::{Cache, compress, indent::Indent, misfit, shape, written};
use crate::{
    endpoints::{Context, respond},
    server::Core,
};

/// From so many objects on, lists that are not sent as they are stored are made where nobody else waits.
const MANY: usize = 64;

/// Transcoded objects are kept only of lists that leave room for others, in objects.
const KEPT: usize = 2000;

/// Answers with a list.
pub(super) async fn response(
    core: &Core,
    context: &Context<'_>,
    wants: Accepted,
    list: List,
) -> Result<Response<Body>, Status> {
    if let Form::Partial(_) = wants.form {
        return Err(misfit(&context.row, wants.form, true));
    }
    if wants.form == Form::Object && wants.encoding == Encoding::Json {
        let pieces = list.chunks();
        if !wants.pretty {
            return Ok(sent(context, wants.encoding, pieces));
        }
        let mut indent = Indent::default();
        let pieces = pieces.map(move |piece| Bytes::from(indent.piece(&piece)));
        return Ok(sent(context, wants.encoding, pieces));
    }
    let short = list.items.len() < MANY;
    let (cache, include) = (core.transcoded.clone(), shape::include(context, wants.form)?);
    let make = move || made(&cache, wants, include, list);
    let pieces = if short {
        make()?
    } else {
        tokio::task::spawn_blocking(make).await.map_err(Status::internal)??
    };
    Ok(sent(context, wants.encoding, pieces.into_iter()))
}

/// The pieces of a list in form and encoding wanted.
fn made(
    cache: &Cache,
    wants: Accepted,
    include: Include,
    list: List,
) -> Result<Vec<Bytes>, Status> {
    let meta = ListMeta {
        resource_version: list.revision.to_string(),
        continue_token: list.continue_token.clone(),
        remaining_item_count: list.remaining,
    };
    let row = list.row.clone();
    let objects = || list.items.iter().map(|item| item.to_json(&row));
    let json = match wants.form {
        Form::Object if wants.encoding == Encoding::Protobuf => {
            return transcoded(cache, &meta, &list);
        }
        Form::Object => return Ok(vec![written(wants, list.to_json())?]),
        Form::Partial(version) | Form::PartialList(version) => {
            codec::partial::partial_list(&meta, objects(), version)
        }
        Form::Table(version) => {
            let now = Timestamp::now();
            codec::table::table(&row.kind, &meta, objects(), include, version, true, now)
        }
    };
    Ok(vec![written(wants, json.map_err(Status::internal)?.into())?])
}

/// A list in protobuf, of items that may have been made before.
fn transcoded(cache: &Cache, meta: &ListMeta, list: &List) -> Result<Vec<Bytes>, Status> {
    let row = &list.row;
    let (version, kind) = (row.api_version(), &row.kind.kind);
    let keep = list.items.len() <= KEPT;
    let items = list.items.iter().map(|item| {
        let make = || protobuf::item(&item.to_json(row), &version, kind).map(Bytes::from);
        if keep {
            return cache.get_or_make(row, item.identity(), make);
        }
        cache.get(row, item.identity()).map_or_else(make, Ok)
    });
    let items = items.collect::<Result<Vec<_>, _>>().map_err(Status::internal)?;
    protobuf::list(&version, &row.list_kind, meta, &items).map_err(Status::internal)
}

/// Sends pieces: one body if there is one, else a stream, compressed if it is long and the client likes.
fn sent(
    context: &Context<'_>,
    encoding: Encoding,
    mut pieces: impl Iterator<Item = Bytes> + Send + 'static,
) -> Response<Body> {
    let zip = respond::accepts_gzip(context.headers);
    let (mut first, mut length) = (Vec::new(), 0);
    while first.len() < 2 || zip && length <= compress::THRESHOLD {
        let Some(piece) = pieces.next() else { break };
        length += piece.len();
        first.push(piece);
    }
    if zip && length > compress::THRESHOLD {
        return compress::response(first.into_iter().chain(pieces), encoding);
    }
    if first.len() < 2 {
        let whole = first.pop().unwrap_or_default();
        return respond::bytes(StatusCode::OK, encoding.media_type(), whole);
    }
    let pieces = first.into_iter().chain(pieces).map(Ok::<_, std::convert::Infallible>);
    compress::streamed(Body::stream(stream::iter(pieces)), encoding.media_type())
}
