//! Deleting Namespaces: first the pods, then everything else in them, then the Namespace.
//!
//! Finds what there is to delete by discovery, so it knows no kind but Pod and Namespace.

mod conditions;
mod content;

use client::{Cache, Caches, ErrorExt, ObjectKey};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Resource,
    api::{ApiResource, Request},
};
use reconcile::{ApplyError, Context, Deps, Outcome, Reconciler, Runtime, Wrote, itself};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::{conditions::Report, content::delete_content};
use crate::{discover::discover, objects::name};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "namespace-controller";

/// The finalizer in a Namespace's spec that this controller serves.
const FINALIZER: &str = "kubernetes";
/// Pause before looking again at content that is still there.
const AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// Whether objects may be created in the Namespace.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
}

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let namespaces = caches.cache::<Namespace>();
    Runtime::new(NAME, deps)
        .watch(&namespaces, itself)
        .concurrent(4)
        .run_reconciler(Namespaces { namespaces }, shutdown)
        .await;
}

struct Namespaces {
    namespaces: Cache<Namespace>,
}

impl Reconciler for Namespaces {
    async fn reconcile(
        &self,
        key: &ObjectKey,
        context: Context,
        deps: &Deps,
    ) -> Result<Outcome, (ApplyError, Vec<Wrote>)> {
        let Some(namespace) = self.namespaces.get_key(key) else { return Ok(Outcome::default()) };
        let finalizers = finalizers(&namespace);
        if namespace.metadata.deletion_timestamp.is_none() || finalizers.is_empty() {
            return Ok(Outcome::default());
        }
        empty(&namespace, context.now, deps).await.map_err(|error| {
            let resource = ApiResource::erase::<Namespace>(&());
            (ApplyError::request("emptying", &resource, &key.name, error), Vec::new())
        })
    }
}

fn finalizers(namespace: &Namespace) -> Vec<String> {
    namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default()
}

/// Deletes what is left in the Namespace, says what remains, and lets it go when nothing does.
async fn empty(namespace: &Namespace, now: Timestamp, deps: &Deps) -> Result<Outcome, kube::Error> {
    let client = &deps.client;
    let mut report = Report::default();
    let served = match discover(client).await {
        Ok(discovered) => {
            if !discovered.stale.is_empty() {
                report.discovery = Some(format!(
                    "unable to retrieve the complete list of server APIs: {}",
                    discovered.stale.join(", ")
                ));
            }
            discovered.served
        }
        Err(error) => {
            report.discovery = Some(error.to_string());
            Vec::new()
        }
    };
    if report.discovery.is_none() {
        delete_content(client, name(&namespace.metadata), served, &mut report).await;
    }
    let mut wrote = say(namespace, &report, now, client).await?;
    if report.is_empty() {
        wrote.extend(finalize(namespace, client).await?);
        return Ok(Outcome { wrote, requeue_at: None });
    }
    Ok(Outcome { wrote, requeue_at: now.checked_add(AGAIN).ok() })
}

/// Writes phase and conditions if they differ.
async fn say(
    namespace: &Namespace,
    report: &Report,
    now: Timestamp,
    client: &kube::Client,
) -> Result<Vec<Wrote>, kube::Error> {
    let old = namespace.status.clone().unwrap_or_default();
    let new = report.status(&old, now);
    let (old, new) = (json!(old), json!(new));
    let Some(patch) = reconcile::merge_diff(&old, &new) else { return Ok(Vec::new()) };
    let api: Api<Namespace> = Api::all(client.clone());
    match client::patch_status(&api, name(&namespace.metadata), patch).await {
        Ok(written) => Ok(seen(written.metadata.resource_version.as_deref())),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Takes our finalizer off: with the last one the server removes the Namespace.
async fn finalize(namespace: &Namespace, client: &kube::Client) -> Result<Vec<Wrote>, kube::Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    let Some(mut current) = api.get_opt(name(&namespace.metadata)).await? else {
        return Ok(Vec::new());
    };
    if current.metadata.uid != namespace.metadata.uid {
        return Ok(Vec::new());
    }
    let mut finalizers = finalizers(&current);
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    current.spec.get_or_insert_default().finalizers = Some(finalizers);
    let body = serde_json::to_vec(&current).map_err(kube::Error::SerdeError)?;
    let request = Request::new(Namespace::url_path(&(), None))
        .replace_subresource("finalize", name(&current.metadata), &Default::default(), body)
        .map_err(kube::Error::BuildRequest)?;
    match client.request::<Value>(request).await {
        Ok(written) => Ok(seen(written["metadata"]["resourceVersion"].as_str())),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn seen(version: Option<&str>) -> Vec<Wrote> {
    let resource = ApiResource::erase::<Namespace>(&());
    version.and_then(|version| Wrote::changed(&resource, version)).into_iter().collect()
}
