//! Stages five and eight: the admission plugins, in their order.

use std::time::{Duration, Instant};

use meta::Status;
use serde_json::Value;

use super::Context;
use super::metadata::{dedup_owners, repeated_owners};
use crate::admission::{Attributes, Measure, Operation};
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
    let mut step = Step::new(context, subject, false);
    for (at, plugin) in context.engine.admission.iter().enumerate() {
        if plugin.handles(subject.operation, &context.stored, subject.subresource) {
            let admitted = plugin.mutate(&attributes, object).await;
            step.note(at, admitted)?;
        }
    }
    drop(step);
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
    let mut step = Step::new(context, subject, true);
    for (at, plugin) in context.engine.admission.iter().enumerate() {
        if plugin.handles(subject.operation, &context.stored, subject.subresource) {
            let admitted = plugin.validate(&attributes, object).await;
            step.note(at, admitted)?;
        }
    }
    Ok(())
}

/// The time that a step takes and that each plugin takes of it, for whoever measures.
struct Step<'a> {
    measure: Option<&'a dyn Measure>,
    operation: Operation,
    validates: bool,
    rejected: bool,
    began: Instant,
    last: Instant,
}

impl<'a> Step<'a> {
    fn new(context: &'a Context<'_>, subject: Subject<'_>, validates: bool) -> Self {
        let (measure, operation) = (context.engine.measure.as_deref(), subject.operation);
        let began = Instant::now();
        Self { measure, operation, validates, rejected: false, began, last: began }
    }

    fn note(&mut self, plugin: usize, admitted: Result<(), Status>) -> Result<(), Status> {
        let now = Instant::now();
        self.rejected = admitted.is_err();
        self.tell(Some(plugin), now - self.last);
        self.last = now;
        admitted
    }

    fn tell(&self, plugin: Option<usize>, took: Duration) {
        if let Some(measure) = self.measure {
            measure.admitted(plugin, self.validates, self.operation, self.rejected, took);
        }
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.tell(None, self.last - self.began);
    }
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
