//! Carrying out a plan: requests with bounded concurrency, creates in growing batches, events.
//!
//! Decides nothing but the order; retries nothing: the runtime runs the key again.

use client::{ErrorExt, EventRecorder, ObjectKey};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Resource,
    api::{
        ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions,
        PropagationPolicy, Request,
    },
};
use serde::Deserialize;

use crate::{Action, Failure, Plan, Propagation, guard::Wrote};

/// Requests under way at once for one plan.
const CONCURRENT: usize = 16;
/// Creates in the first batch; each batch that succeeds doubles the next.
const FIRST_BATCH: usize = 1;
/// Largest batch of creates.
const LARGEST_BATCH: usize = 500;

/// Why a plan was not applied whole.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The server refused a write, or could not be asked.
    #[error("{verb} {kind} {name:?}: {}", text(source))]
    Request {
        /// What was attempted.
        verb: &'static str,
        /// On what kind.
        kind: String,
        /// On which object; empty for generated names.
        name: String,
        /// The error.
        source: Box<kube::Error>,
    },
    /// The controller panicked.
    #[error("panicked: {0}")]
    Panic(String),
}

impl ApplyError {
    /// Wraps the error of a request.
    pub fn request(
        verb: &'static str,
        resource: &ApiResource,
        name: &str,
        source: kube::Error,
    ) -> Self {
        Self::Request {
            verb,
            kind: resource.kind.clone(),
            name: name.to_owned(),
            source: Box::new(source),
        }
    }

    /// Whether the object had changed since it was seen: routine, not worth a warning.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Request { source, .. } if source.is_conflict())
    }

    /// What the next plan is told.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Request { verb, source, name, .. } => Failure {
                verb,
                code: source.code(),
                reason: source.reason().to_owned(),
                message: text(source),
                object: name.clone(),
            },
            Self::Panic(message) => Failure {
                verb: "",
                code: None,
                reason: String::new(),
                message: message.clone(),
                object: String::new(),
            },
        }
    }
}

/// The error as users should read it: the server's own message where there is one.
fn text(error: &kube::Error) -> String {
    client::status_of(error).map_or_else(|| error.to_string(), |status| status.message.clone())
}

/// What is read of the answer to a write.
#[derive(Deserialize, Default)]
struct Written {
    #[serde(default)]
    metadata: WrittenMeta,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct WrittenMeta {
    #[serde(default)]
    name: String,
    #[serde(default)]
    resource_version: String,
}

/// Carries out `plan`. On failure, also what was written all the same.
pub async fn apply(
    plan: Plan,
    client: &kube::Client,
    events: &EventRecorder,
) -> Result<Vec<Wrote>, (ApplyError, Vec<Wrote>)> {
    let Plan { actions, status, notes, .. } = plan;
    let (creates, others): (Vec<_>, Vec<_>) =
        actions.into_iter().partition(|action| matches!(action, Action::Create { .. }));
    let mut run = Run { client, events, wrote: Vec::new(), error: None };
    run.all(others).await;
    if run.error.is_none() {
        run.slow_start(creates).await;
    }
    run.all(status.into_iter().collect()).await;
    match run.error {
        Some(error) => Err((error, run.wrote)),
        None => {
            for note in notes {
                events.event(&note.about, note.kind, note.reason, "", note.note);
            }
            Ok(run.wrote)
        }
    }
}

struct Run<'a> {
    client: &'a kube::Client,
    events: &'a EventRecorder,
    wrote: Vec<Wrote>,
    /// The first failure.
    error: Option<ApplyError>,
}

impl Run<'_> {
    /// Carries out all actions, whether or not some fail.
    async fn all(&mut self, actions: Vec<Action>) {
        let (client, events) = (self.client, self.events);
        let mut results = stream::iter(actions)
            .map(|action| async move { perform(&action, client, events).await })
            .buffer_unordered(CONCURRENT);
        while let Some(result) = results.next().await {
            match result {
                Ok(wrote) => self.wrote.extend(wrote),
                Err(error) => self.error = self.error.take().or(Some(error)),
            }
        }
    }

    /// Creates in batches of 1, 2, 4 …, so that what cannot succeed fails once and not a
    /// thousand times.
    async fn slow_start(&mut self, mut creates: Vec<Action>) {
        let mut batch = FIRST_BATCH;
        while !creates.is_empty() && self.error.is_none() {
            let rest = creates.split_off(batch.min(creates.len()));
            self.all(std::mem::replace(&mut creates, rest)).await;
            batch = (batch * 2).min(LARGEST_BATCH);
        }
    }
}

async fn perform(
    action: &Action,
    client: &kube::Client,
    events: &EventRecorder,
) -> Result<Option<Wrote>, ApplyError> {
    let (verb, result) = match action {
        Action::Create { resource, namespace, object, .. } => {
            ("creating", create(client, resource, namespace.as_deref(), object).await)
        }
        Action::Delete { .. } => ("deleting", delete(client, action).await),
        Action::Patch { .. } => ("patching", patch(client, action).await),
    };
    let report = action.report();
    match result {
        Ok((written, wrote)) => {
            if let Some((about, (reason, note))) =
                report.and_then(|report| Some((&report.about, report.done.as_ref()?)))
            {
                let name = if written.is_empty() { action.name() } else { &written };
                events.normal(about, reason, note.replace("{name}", name));
            }
            Ok(wrote)
        }
        // Everything in the namespace is going, and what was to be created with it.
        Err(error) if error.is_namespace_terminating() => Ok(None),
        Err(error) => {
            if let Some((about, (reason, note))) =
                report.and_then(|report| Some((&report.about, report.failed.as_ref()?)))
            {
                warn_about(events, about, reason, note, action.name(), &error);
            }
            Err(ApplyError::request(verb, action.resource(), action.name(), error))
        }
    }
}

fn warn_about(
    events: &EventRecorder,
    about: &ObjectReference,
    reason: &str,
    note: &str,
    name: &str,
    error: &kube::Error,
) {
    events.warning(about, reason, note.replace("{name}", name).replace("{error}", &text(error)));
}

type Done = (String, Option<Wrote>);

fn request(resource: &ApiResource, namespace: Option<&str>) -> Request {
    Request::new(DynamicObject::url_path(resource, namespace))
}

async fn create(
    client: &kube::Client,
    resource: &ApiResource,
    namespace: Option<&str>,
    object: &serde_json::Value,
) -> Result<Done, kube::Error> {
    let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
    let request = request(resource, namespace)
        .create(&PostParams::default(), body)
        .map_err(kube::Error::BuildRequest)?;
    let written: Written = client.request(request).await?;
    let wrote = Wrote::changed(resource, &written.metadata.resource_version);
    Ok((written.metadata.name, wrote))
}

async fn delete(client: &kube::Client, action: &Action) -> Result<Done, kube::Error> {
    let Action::Delete { resource, namespace, name, uid, grace, propagation, .. } = action else {
        return Ok(Done::default());
    };
    let params = DeleteParams {
        grace_period_seconds: *grace,
        propagation_policy: Some(match propagation {
            Propagation::Background => PropagationPolicy::Background,
            Propagation::Foreground => PropagationPolicy::Foreground,
            Propagation::Orphan => PropagationPolicy::Orphan,
        }),
        preconditions: uid
            .clone()
            .map(|uid| Preconditions { uid: Some(uid), resource_version: None }),
        ..DeleteParams::default()
    };
    let request = request(resource, namespace.as_deref())
        .delete(name, &params)
        .map_err(kube::Error::BuildRequest)?;
    match client.request_text(request).await {
        Ok(_) => {
            let key = ObjectKey::new(namespace.as_deref(), name.clone());
            let wrote = uid.clone().map(|uid| Wrote::deleted(resource, key, uid));
            Ok((name.clone(), wrote))
        }
        // Gone, or another object by now: what was to be deleted no longer exists.
        Err(error) if error.is_not_found() => Ok((name.clone(), None)),
        Err(error) => Err(error),
    }
}

async fn patch(client: &kube::Client, action: &Action) -> Result<Done, kube::Error> {
    let Action::Patch { resource, namespace, name, subresource, patch, .. } = action else {
        return Ok(Done::default());
    };
    let request = request(resource, namespace.as_deref());
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    let request = match subresource {
        Some(subresource) => request.patch_subresource(subresource, name, &params, &patch),
        None => request.patch(name, &params, &patch),
    }
    .map_err(kube::Error::BuildRequest)?;
    match client.request::<Written>(request).await {
        Ok(written) => {
            let wrote = Wrote::changed(resource, &written.metadata.resource_version);
            Ok((written.metadata.name, wrote))
        }
        Err(error) if error.is_not_found() => Ok((name.clone(), None)),
        Err(error) => Err(error),
    }
}
