//! exec, attach and port-forward: which container or network namespace the path of a request means.

use std::path::PathBuf;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use serve::Body;
use tokio_util::sync::CancellationToken;

use super::remote::{self, Purpose};
use super::{containers, respond};
use crate::context::Context;
use crate::pod::{PodState, Sandbox};
use crate::spec;

/// `/exec/…` and `/attach/…`: namespace, pod, perhaps its uid, container.
pub(super) async fn command(
    context: &Context,
    purpose: Purpose,
    target: &[&str],
    request: Request<Body>,
    shutdown: CancellationToken,
) -> Response<Body> {
    let (namespace, pod, container) = match target {
        [namespace, pod, container] | [namespace, pod, _, container] => (namespace, pod, container),
        _ => return respond::not_found(),
    };
    let Some(state) = containers::pod(context, namespace, pod) else { return no_pod() };
    let found = state.containers.iter().position(|c| c.name == *container);
    let running = found.and_then(|index| Some((index, state.containers[index].running()?)));
    let Some((index, id)) = running.map(|(index, running)| (index, running.id.clone())) else {
        return respond::text(
            StatusCode::NOT_FOUND,
            format!("container not found ({container:?})"),
        );
    };
    let terminal = state.spec_of(index).and_then(|c| c.tty).unwrap_or_default();
    let container = remote::Container { id, terminal };
    remote::command(context.runtime.as_ref(), container, purpose, request, shutdown).await
}

/// `/portForward/…`: namespace, pod, perhaps its uid.
pub(super) async fn forward(
    context: &Context,
    target: &[&str],
    request: Request<Body>,
    shutdown: CancellationToken,
) -> Response<Body> {
    let (namespace, pod) = match target {
        [namespace, pod] | [namespace, pod, _] => (namespace, pod),
        _ => return respond::not_found(),
    };
    let Some(state) = containers::pod(context, namespace, pod) else { return no_pod() };
    match network_namespace(context, &state).await {
        Ok(path) => remote::forward(format!("{pod}_{namespace}"), path, request, shutdown),
        Err(problem) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, problem),
    }
}

fn no_pod() -> Response<Body> {
    respond::text(StatusCode::NOT_FOUND, "pod does not exist")
}

/// Where the pod's network namespace is; `None` for the node's own.
async fn network_namespace(
    context: &Context,
    state: &Arc<PodState>,
) -> Result<Option<PathBuf>, String> {
    if spec::host_network(&state.pod) {
        return Ok(None);
    }
    let Sandbox::Ready { id, .. } = &state.sandbox else {
        return Err("the pod has no sandbox".into());
    };
    let status =
        context.runtime.pod_sandbox_status(id.clone(), true).await.map_err(|e| e.to_string())?;
    let info: serde_json::Value = status
        .info
        .get("info")
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array();
    let path = namespaces
        .into_iter()
        .flatten()
        .find(|namespace| namespace["type"] == "network")
        .and_then(|namespace| namespace["path"].as_str());
    path.map(|path| Some(PathBuf::from(path)))
        .ok_or_else(|| "the runtime does not tell the pod's network".into())
}
