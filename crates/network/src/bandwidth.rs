//! Pods that ask for a bandwidth on a kernel that cannot limit any: each is told once.
//!
//! The limits themselves are set by the CNI plugin, which the container runtime gives the
//! annotations' values.

use client::{Caches, EventRecorder, Select, reference};
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use crate::netlink::{Socket, queue, route};

/// The annotations by which pods ask (bits a second, as quantities).
const ANNOTATIONS: [&str; 2] =
    ["kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"];

/// Whether the kernel can limit what the device `name` sends.
pub(crate) fn can_limit(name: &str) -> bool {
    let ask = || {
        let mut socket = Socket::route().ok()?;
        let link = route::link(&mut socket, name).ok()??;
        Some(queue::can_limit(&mut socket, link.index))
    };
    // Who cannot be asked is given the benefit of the doubt: the plugin will find out.
    ask().unwrap_or(true)
}

/// Tells the pods of `node` that their limits are not kept, until shutdown.
pub(crate) async fn tell(caches: Caches, node: String, shutdown: CancellationToken) {
    let events =
        EventRecorder::new(caches.client(), "skiff-network", Some(&node), shutdown.clone());
    let own = Select::all().fields(format!("spec.nodeName={node}"));
    let pods = caches.selected::<Pod>(own);
    let mut changes = pods.subscribe();
    loop {
        let Some(Some(change)) = shutdown.run_until_cancelled(changes.next()).await else { return };
        let Some(pod) = &change.after else { continue };
        if asks_in_vain(change.before.as_deref(), pod, &node) {
            let text = "the kernel has no token bucket filter (sch_tbf): the pod's bandwidth is not limited";
            events.warning(&reference(&**pod), "BandwidthNotLimited", text);
        }
    }
}

/// Whether a pod has just come to `node` and asks for a bandwidth.
fn asks_in_vain(before: Option<&Pod>, pod: &Pod, node: &str) -> bool {
    let here =
        |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
    let asks = |pod: &Pod| {
        let annotations = pod.metadata.annotations.iter().flatten();
        annotations.into_iter().any(|(key, _)| ANNOTATIONS.contains(&key.as_str()))
    };
    // After a restart, those that run have been told.
    let runs = pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
    here(pod) && asks(pod) && !runs && !before.is_some_and(here)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(node: &str, annotation: &str, ip: Option<&str>) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "annotations": {annotation: "10M"}},
            "spec": {"nodeName": node, "containers": []}, "status": {"podIP": ip},
        }))
        .expect("pod")
    }

    #[test]
    fn each_is_told_once() {
        let asking = |node, ip| pod(node, "kubernetes.io/egress-bandwidth", ip);
        let told = |before: Option<&Pod>, pod: &Pod| asks_in_vain(before, pod, "a");
        assert!(told(None, &asking("a", None)));
        assert!(told(Some(&asking("", None)), &asking("a", None)));
        assert!(!told(Some(&asking("a", None)), &asking("a", None)));
        assert!(!told(None, &asking("a", Some("10.244.0.2"))));
        assert!(!told(None, &asking("b", None)));
        assert!(!told(None, &pod("a", "other", None)));
    }
}
