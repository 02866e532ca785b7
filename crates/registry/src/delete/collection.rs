//! Deletion of everything that matches.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use meta::Status;

use super::{Options, delete_named};
use crate::object::Object;
use crate::outcome::{Answer, Outcome};
use crate::pipeline::Context;
use crate::read;
use crate::registry::Registry;
use crate::request::Request;

/// This many deletions run at once.
const PARALLEL: usize = 16;

/// DELETE of a collection. Not atomic: the first failure ends it and is the answer.
pub(crate) async fn delete_collection(
    engine: &Arc<Registry>,
    request: &Request,
    body: &Bytes,
) -> Answer {
    let context = Context::new(engine, request)?;
    let options = Options::read(&context, body)?;
    let list = read::list(engine, request).await?;
    // Made when their turn comes: there may be many.
    let deletions = (0..list.items.len())
        .map(|at| delete_item(engine, request, &list.items[at], &options).boxed());
    let mut running = futures::stream::iter(deletions).buffer_unordered(PARALLEL);
    while let Some(done) = running.next().await {
        done?;
    }
    drop(running);
    Ok(Outcome::List(list))
}

/// Deletes one object; one that is gone already is as good as deleted.
async fn delete_item(
    engine: &Arc<Registry>,
    request: &Request,
    item: &Object,
    options: &Options,
) -> Result<(), Status> {
    let request = Request {
        namespace: (!item.namespace().is_empty()).then(|| item.namespace().to_owned()),
        name: Some(item.name().to_owned()),
        ..request.clone()
    };
    let context = Context::new(engine, &request)?;
    match delete_named(&context, item.name(), options).await {
        Err(status) if !status.is("NotFound") => Err(status),
        _ => Ok(()),
    }
}
