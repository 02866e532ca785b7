//! `/pods` and `/runningpods`: the pods of this node as the kubelet sees them.

use http::Response;
use k8s_openapi::api::core::v1 as api;
use serde_json::json;
use serve::Body;

use super::{containers, respond::json as answer};
use crate::{actor::occupies, context::Context, pod::PodState};

/// Every pod, with its status as it is now.
pub(super) fn list(context: &Context) -> Response<Body> {
    answer(&document(context, |_| true))
}

/// Pods that have not ended.
pub(super) fn running(context: &Context) -> Response<Body> {
    answer(&document(context, occupies))
}

fn document(context: &Context, keep: impl Fn(&PodState) -> bool) -> serde_json::Value {
    let mut states: Vec<_> = context.pods.lock().values().filter(|s| keep(s)).cloned().collect();
    states.sort_by(|a, b| {
        let key = |s: &PodState| (s.pod.metadata.namespace.clone(), s.pod.metadata.name.clone());
        key(a).cmp(&key(b))
    });
    let items: Vec<api::Pod> = states
        .iter()
        .map(|state| api::Pod {
            status: Some(containers::status(context, state)),
            ..(*state.pod).clone()
        })
        .collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}
