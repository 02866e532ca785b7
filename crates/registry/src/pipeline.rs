//! The write pipeline: named stages in Kubernetes' order, and the three ways through them.
//!
//! decode → patch → default → field ownership → mutating admission → prepare → validate →
//! validating admission → commit → result. Each stage is one small function in a module of its
//! own; nothing writes objects past them. A conflict retry runs again from patch.

mod admit;
mod change;
mod commit;
mod create;
mod decode;
mod metadata;
mod ownership;
mod patch;
mod prepare;
mod result;
mod validate;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use meta::{GroupResource, Status};
use parking_lot::Mutex;
use serde_json::Value;

pub(crate) use admit::{Subject, mutate as admit_mutate, validate as admit_validate};
pub(crate) use change::{Change, Part, Written, change, vanish, write};
pub(crate) use commit::{Failure, commit};
pub(crate) use create::now;
pub(crate) use decode::{check_name, decode, decode_options};
pub(crate) use metadata::{FOREGROUND, ORPHAN, finalizer_names};
pub(crate) use ownership::{Apply, Scaled, restore};
pub(crate) use patch::{Prepared, apply as apply_patch};
pub(crate) use result::{object_outcome, status_outcome, success, value_outcome};

use crate::admission::Along;
use crate::outcome::Answer;
use crate::registry::Registry;
use crate::request::{PatchType, Request};
use crate::row::Row;

/// How often a conflict is retried before the client is told.
pub(crate) const MOST_RETRIES: usize = 64;

/// One write on its way through the pipeline.
pub(crate) struct Context<'a> {
    pub(crate) engine: &'a Arc<Registry>,
    pub(crate) request: &'a Request,
    /// The row in whose version objects are stored: the one most stages work in.
    pub(crate) stored: Arc<Row>,
    pub(crate) now: Timestamp,
    pub(crate) warnings: Mutex<Vec<String>>,
    along: Mutex<Along>,
}

impl<'a> Context<'a> {
    /// The context of a request on a stored resource.
    pub(crate) fn new(engine: &'a Arc<Registry>, request: &'a Request) -> Result<Self, Status> {
        let stored = request.row.storage.as_ref().and_then(|s| engine.rows.stored(s));
        let stored = stored.ok_or_else(|| {
            Status::method_not_supported(
                &request.row.group_resource(),
                request.action.verb().as_str(),
            )
        })?;
        Ok(Self {
            engine,
            request,
            stored: stored.clone(),
            now: (engine.clock)(),
            warnings: Mutex::default(),
            along: Mutex::default(),
        })
    }

    pub(crate) fn row(&self) -> &Arc<Row> {
        &self.request.row
    }

    pub(crate) fn resource(&self) -> GroupResource {
        self.request.row.group_resource()
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.request.namespace.as_deref()
    }

    /// The name in the path.
    pub(crate) fn name(&self) -> Result<&str, Status> {
        self.request
            .name
            .as_deref()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| Status::bad_request("Name parameter required."))
    }

    /// The storage key of an object of the request's namespace.
    pub(crate) fn key(&self, name: &str) -> Result<store::Key, Status> {
        if self.row().namespaced() && self.namespace().is_none_or(str::is_empty) {
            return Err(Status::bad_request("Namespace parameter required."));
        }
        let problems = meta::names::is_path_segment(name);
        if !problems.is_empty() {
            return Err(Status::bad_request(format!(
                "Name parameter invalid: {name:?}: {}",
                problems.join(";")
            )));
        }
        self.stored
            .key(self.namespace(), name)
            .ok_or_else(|| Status::internal("the resource is not stored"))
    }

    pub(crate) fn warn(&self, texts: impl IntoIterator<Item = String>) {
        self.warnings.lock().extend(texts);
    }

    /// What admission wants written along, once.
    pub(crate) fn take_along(&self) -> Along {
        std::mem::take(&mut *self.along.lock())
    }

    pub(crate) fn take_warnings(&self) -> Vec<String> {
        let mut warnings = std::mem::take(&mut *self.warnings.lock());
        let mut seen = std::collections::HashSet::new();
        warnings.retain(|w| seen.insert(w.clone()));
        warnings
    }

    /// A 422 about an object of this resource.
    pub(crate) fn invalid(&self, name: &str, errors: Vec<meta::FieldError>) -> Status {
        Status::invalid((&self.row().kind.group, &self.row().kind.kind), name, errors)
    }
}

/// POST on a collection.
pub(crate) async fn create(engine: &Arc<Registry>, request: &Request, body: &Bytes) -> Answer {
    let context = Context::new(engine, request)?;
    let kind = &context.row().kind;
    let object = decode(&context, body, kind)?;
    create::create(&context, object, None).await
}

/// PUT of an object.
pub(crate) async fn update(engine: &Arc<Registry>, request: &Request, body: &Bytes) -> Answer {
    let context = Context::new(engine, request)?;
    let object = decode(&context, body, &context.row().kind)?;
    check_name(&context, &object)?;
    change(&context, &Change::main(), |_: &Value| Ok(object.clone())).await
}

/// PATCH of an object.
pub(crate) async fn patch(
    engine: &Arc<Registry>,
    request: &Request,
    patch: PatchType,
    body: &Bytes,
) -> Answer {
    let context = Context::new(engine, request)?;
    change_by_patch(&context, &Change::main(), patch, body).await
}

/// Changes an object by a patch of the object, written whole or through a subresource of its kind.
pub(crate) async fn change_by_patch(
    context: &Context<'_>,
    how: &Change,
    patch: PatchType,
    body: &Bytes,
) -> Answer {
    context.request.params.check_patch(patch)?;
    if patch == PatchType::Apply {
        return change(context, how, Apply::new(context, how.subresource, body)?).await;
    }
    change(context, how, Prepared::new(context, patch, body)?).await
}
