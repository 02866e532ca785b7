//! The second table: subresources and endpoints that are no plain objects.
//!
//! Owns which of them the engine carries out. log, exec, attach, portforward, proxy and token are
//! the API server's, and answer here as paths that do not exist.

mod binding;
mod components;
mod eviction;
mod scale;

use std::sync::Arc;

use meta::{GroupVersionKind, Status};
use serde_json::Value;

use crate::admission::Operation;
use crate::object::meta_text;
use crate::outcome::Answer;
use crate::pipeline::{self, Change, Context, Part, Subject, admit_mutate, admit_validate, change};
use crate::read;
use crate::registry::Registry;
use crate::request::{Action, Request};

/// What a subresource does.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Reads and writes a part of the object.
    Part(&'static str, Part),
    /// Reads and writes the number of replicas.
    Scale,
    /// Binds a pod to a node.
    Binding,
    /// Deletes a pod if its disruption budget allows.
    Eviction,
}

/// The action behind a subresource; an empty plural stands for every resource whose row has it.
const ACTIONS: &[(&str, &str, Kind)] = &[
    ("", "status", Kind::Part("status", Part::Status)),
    ("", "scale", Kind::Scale),
    ("certificatesigningrequests", "approval", Kind::Part("approval", Part::Approval)),
    ("namespaces", "finalize", Kind::Part("finalize", Part::Finalize)),
    ("pods", "binding", Kind::Binding),
    ("pods", "ephemeralcontainers", Kind::Part("ephemeralcontainers", Part::EphemeralContainers)),
    ("pods", "eviction", Kind::Eviction),
    ("pods", "resize", Kind::Part("resize", Part::Resize)),
];

/// Carries out a request on a subresource.
pub(crate) async fn execute(engine: &Arc<Registry>, request: &Request) -> Answer {
    let row = &request.row;
    let name = request.subresource.as_deref().unwrap_or_default();
    let (Some(subresource), Some((_, _, kind))) = (
        row.subresource(name),
        ACTIONS.iter().find(|(plural, n, _)| {
            *n == name && (plural.is_empty() || *plural == row.resource.resource)
        }),
    ) else {
        return Err(Status::no_such_path());
    };
    let verb = request.action.verb();
    if !subresource.verbs.contains(&verb) {
        return Err(Status::method_not_supported(&row.group_resource(), verb.as_str()));
    }
    match kind {
        Kind::Part(name, part) => write_part(engine, request, name, *part).await,
        Kind::Scale => scale::execute(engine, request, &subresource.kind).await,
        Kind::Binding => binding::execute(engine, request, &subresource.kind).await,
        Kind::Eviction => eviction::execute(engine, request, &subresource.kind).await,
    }
}

/// What is posted to a subresource to be done, validated and admitted: its name, if it has one, is that of the URL.
async fn begin<'a>(
    engine: &'a Arc<Registry>,
    request: &'a Request,
    kind: &GroupVersionKind,
    subresource: &'static str,
) -> Result<(Context<'a>, Value), Status> {
    let Action::Create(body) = &request.action else { return Err(Status::no_such_path()) };
    let context = Context::new(engine, request)?;
    let mut object = pipeline::decode(&context, body, kind)?;
    let name = context.name()?;
    let given = meta_text(&object, "name");
    if !given.is_empty() && given != name {
        let kind = &kind.kind;
        return Err(Status::bad_request(format!(
            "name in URL does not match name in {kind} object"
        )));
    }
    let errors = schema::rules::validate(kind, &object);
    if !errors.is_empty() {
        return Err(Status::invalid((&kind.group, &kind.kind), name, errors));
    }
    let subject =
        Subject { operation: Operation::Create, subresource: Some(subresource), name, old: None };
    admit_mutate(&context, subject, &mut object).await?;
    admit_validate(&context, subject, Some(&object)).await?;
    Ok((context, object))
}

/// Reads or writes a part of an object.
async fn write_part(
    engine: &Arc<Registry>,
    request: &Request,
    subresource: &'static str,
    part: Part,
) -> Answer {
    let how = Change::through(subresource, part);
    let context = Context::new(engine, request)?;
    let kind = &request.row.kind;
    match &request.action {
        Action::Update(body) => {
            let object = pipeline::decode(&context, body, kind)?;
            pipeline::check_name(&context, &object)?;
            change(&context, &how, |_: &Value| Ok(object.clone())).await
        }
        Action::Patch(patch, body) => pipeline::change_by_patch(&context, &how, *patch, body).await,
        _ => read::get(engine, request).await,
    }
}

/// Carries out a request on a kind that is not stored.
pub(crate) async fn execute_unstored(engine: &Arc<Registry>, request: &Request) -> Answer {
    let row = &request.row;
    match (row.resource.resource.as_str(), &request.action) {
        ("bindings", Action::Create(_)) => binding::execute_unnamed(engine, request).await,
        ("componentstatuses", Action::List | Action::Get) => {
            components::execute(engine, request).await
        }
        _ => {
            Err(Status::method_not_supported(&row.group_resource(), request.action.verb().as_str()))
        }
    }
}
