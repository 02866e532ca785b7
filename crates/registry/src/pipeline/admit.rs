//! Stages five and eight: the admission plugins, in their order.

use meta::Status;
use serde_json::Value;

use super::Context;
use super::metadata::{dedup_owners, repeated_owners};
use crate::admission::{Attributes, Operation};
use crate::request::Action;

/// What admission is told beside the context.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) operation: Operation,
    pub(crate) subresource: Option<&'a str>,
    pub(crate) name: &'a str,
    pub(crate) old: Option<&'a Value>,
}

/// Lets every plugin that cares change the object, and takes repeated owner references out of it: a client's,
/// unless they came by a patch, before the plugins see them, others after.
pub(crate) async fn mutate(
    context: &Context<'_>,
    subject: Subject<'_>,
    object: &mut Value,
) -> Result<(), Status> {
    if !matches!(context.request.action, Action::Patch(..)) {
        context.warn(repeated_owners(&dedup_owners(object), false));
    }
    let attributes = attributes(context, subject);
    for plugin in &context.engine.admission {
        if plugin.handles(subject.operation, &context.stored, subject.subresource) {
            plugin.mutate(&attributes, object).await?;
        }
    }
    context.warn(repeated_owners(&dedup_owners(object), true));
    Ok(())
}

/// Lets every plugin that cares refuse the write.
pub(crate) async fn validate(
    context: &Context<'_>,
    subject: Subject<'_>,
    object: Option<&Value>,
) -> Result<(), Status> {
    let attributes = attributes(context, subject);
    for plugin in &context.engine.admission {
        if plugin.handles(subject.operation, &context.stored, subject.subresource) {
            plugin.validate(&attributes, object).await?;
        }
    }
    Ok(())
}

fn attributes<'a>(context: &'a Context<'_>, subject: Subject<'a>) -> Attributes<'a> {
    Attributes {
        registry: context.engine,
        user: &context.request.user,
        operation: subject.operation,
        verb: context.request.action.verb(),
        row: &context.stored,
        subresource: subject.subresource,
        namespace: context.namespace(),
        name: subject.name,
        old: subject.old,
        dry_run: context.request.params.dry_run,
        warnings: &context.warnings,
        along: &context.along,
    }
}
