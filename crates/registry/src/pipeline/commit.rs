//! Stage nine: compare and swap.

use std::sync::Arc;

use bytes::Bytes;
use meta::{Revision, Status};
use serde_json::Value;
use store::{CommitError, Durability, Expect, Guard, Key, Record, Write};

use super::Context;
use crate::allocate::Claims;
use crate::header::Header;
use crate::row;

/// Why nothing was committed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Somebody else was first: read again, decide again.
    Conflict,
    /// It cannot be.
    Refused(Status),
}

/// Stores an object, whose bytes were made already, if the key is as expected.
pub(crate) async fn commit(
    context: &Context<'_>,
    key: &Key,
    expect: Expect,
    object: &Value,
    bytes: Bytes,
) -> Result<Arc<Record<Header>>, Failure> {
    commit_claiming(context, key, expect, object, bytes, Claims::default()).await
}

/// Stores an object whose bytes were made already, with what it claims.
pub(super) async fn commit_claiming(
    context: &Context<'_>,
    key: &Key,
    expect: Expect,
    object: &Value,
    bytes: Bytes,
    claims: Claims,
) -> Result<Arc<Record<Header>>, Failure> {
    let header = Header::of(object, &context.stored.selectable);
    let write = Write::put(key.clone(), bytes, header);
    let committed = run(context, key, expect, write, claims).await?;
    committed
        .records
        .into_iter()
        .next()
        .flatten()
        .ok_or_else(|| Failure::Refused(Status::internal("the store kept nothing of a write")))
}

/// Removes an object if it is as expected, with what it claimed; answers with the revision of the
/// removal.
pub(crate) async fn delete_record(
    context: &Context<'_>,
    key: &Key,
    modified: Revision,
    claims: Claims,
) -> Result<Revision, Failure> {
    let write = Write::delete(key.clone());
    Ok(run(context, key, Expect::Modified(modified), write, claims).await?.revision)
}

async fn run(
    context: &Context<'_>,
    key: &Key,
    expect: Expect,
    write: Write<Header>,
    claims: Claims,
) -> Result<store::Committed<Header>, Failure> {
    let mut guards = vec![Guard::new(key.clone(), expect)];
    guards.extend(claims.guards);
    let mut writes = vec![write];
    writes.extend(claims.writes);
    let durability = durability(context);
    let done = context.engine.store.commit(guards, writes, durability).await;
    done.map_err(failure)
}

/// How durable a write of the request must be.
fn durability(context: &Context<'_>) -> Durability {
    let wanted = context.stored.storage.as_ref().map(|s| s.durability);
    match wanted {
        Some(row::Durability::Relaxed) => Durability::Relaxed,
        Some(row::Durability::RelaxedIn(namespace)) if context.namespace() == Some(namespace) => {
            Durability::Relaxed
        }
        _ => Durability::Durable,
    }
}

/// A failed commit, as the engine sees it.
fn failure<N>(error: CommitError<N>) -> Failure {
    match error {
        CommitError::Conflict { .. } => Failure::Conflict,
        CommitError::Invalid(reason) => {
            Failure::Refused(Status::new(413, "RequestEntityTooLarge", reason))
        }
        CommitError::Full => Failure::Refused(Status::service_unavailable(
            "the disk that holds the store is full: the object was not stored",
        )),
        CommitError::Io(reason) => Failure::Refused(Status::service_unavailable(format!(
            "writing to the store failed: {reason}"
        ))),
        CommitError::Closed => Failure::Refused(Status::service_unavailable("the store is closed")),
    }
}
