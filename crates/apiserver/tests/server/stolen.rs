//! What somebody who has stolen a credential of node `n1` may try, over HTTPS: every row says who does what, and what
//! the API server answers. Node `n2` and everything else is somebody else's.

use std::{net::SocketAddr, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use pki::Profile;
use rustls::ClientConfig;
use serde_json::{Value, json};
use serve::Body;

use crate::support::{Cluster, connect};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// `system:node:n1` in `system:nodes`.
    Kubelet,
    /// `skiff:network:n1` in `skiff:network`.
    Network,
    /// What a join token stands for.
    Bootstrap,
}

/// The client of a stolen certificate.
struct Thief {
    server: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Thief {
    fn new(cluster: &Cluster, server: SocketAddr, who: Who) -> Self {
        let (user, group) = match who {
            Who::Kubelet => ("system:node:n1", "system:nodes"),
            Who::Network => ("skiff:network:n1", "skiff:network"),
            Who::Bootstrap => ("system:bootstrap:abcdef", "system:bootstrappers"),
        };
        Self { server, tls: cluster.client_tls(user, group) }
    }

    /// Sends `method path` with the body and further headers; answers with code and text.
    async fn send(&self, request: &str, body: &Value, headers: &[(&str, &str)]) -> (u16, String) {
        let (method, path) = request.split_once(' ').expect("method and path");
        let stream = connect(self.server, self.tls.clone()).await;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, driver) = handshake.await.expect("HTTP");
        let driver = tokio::spawn(driver);
        let kind =
            if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut asked = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "x")
            .header(header::CONTENT_TYPE, kind);
        for (name, value) in headers {
            asked = asked.header(*name, *value);
        }
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let asked = asked.body(Body::from(body)).expect("request");
        let answer = sender.send_request(asked).await.expect("an answer");
        let code = answer.status().as_u16();
        // A watch that is granted has no end.
        let text = if path.contains("watch=true") && code == 200 {
            Vec::new()
        } else {
            Body::from(answer.into_body()).read(1 << 24).await.expect("body").to_vec()
        };
        driver.abort();
        (code, String::from_utf8_lossy(&text).into_owned())
    }
}

async fn make(cluster: &Cluster, path: &str, object: Value) -> Value {
    let made = cluster.admin().post(path, &object).await;
    assert_eq!(made.code, StatusCode::CREATED, "{path}: {}", made.text());
    made.json()
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

fn lease(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}})
}

fn pod(name: &str, node: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "nodeName": node, "serviceAccountName": format!("robot-{node}"),
        "containers": [{"name": "c", "image": "i"}],
        "volumes": [
            {"name": "s", "secret": {"secretName": format!("secret-{node}")}},
            {"name": "m", "configMap": {"name": format!("map-{node}")}},
            {"name": "c", "persistentVolumeClaim": {"claimName": format!("claim-{node}")}},
            {"name": "t", "projected": {"sources": [
                {"serviceAccountToken": {"path": "t"}},
                {"serviceAccountToken": {"path": "v", "audience": "vault"}}]}}]}})
}

/// A slice of the cluster's DNS that leads to `node`.
fn slice(name: &str, node: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4", "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}],
        "endpoints": [{"addresses": ["10.244.0.1"], "nodeName": node}]})
}

fn csr(subject: &str, organization: &str, signer: &str) -> Value {
    let key = pki::NewKey::generate().expect("a key");
    let request = key.request(&Profile::client(subject, Some(organization))).expect("a request");
    json!({"metadata": {"generateName": "stolen-"}, "spec": {
        "request": BASE64_STANDARD.encode(request), "signerName": signer, "usages": ["client auth"]}})
}

/// A token of an account, bound to a pod, for an audience.
fn token(pod: &Value, audiences: &[&str]) -> Value {
    json!({"spec": {"audiences": audiences, "boundObjectRef": {
        "apiVersion": "v1", "kind": "Pod",
        "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}}})
}

/// Everything of both nodes; the two pods.
async fn world(cluster: &Cluster) -> [Value; 2] {
    let mut pods = Vec::new();
    let default = "/api/v1/namespaces/default";
    let mut quantity =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    for node in ["n1", "n2"] {
        make(cluster, "/api/v1/nodes", named(node)).await;
        for (kind, name) in
            [("secrets", "secret"), ("configmaps", "map"), ("serviceaccounts", "robot")]
        {
            make(cluster, &format!("{default}/{kind}"), named(&format!("{name}-{node}"))).await;
        }
        let (claim, volume) = (format!("claim-{node}"), format!("volume-{node}"));
        quantity["volumeName"] = volume.as_str().into();
        let object = json!({"metadata": {"name": claim}, "spec": quantity});
        make(cluster, &format!("{default}/persistentvolumeclaims"), object).await;
        let object = json!({"metadata": {"name": volume}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "claimRef": {"namespace": "default", "name": claim},
            "csi": {"driver": "d", "volumeHandle": "h",
                    "nodePublishSecretRef": {"namespace": "default", "name": format!("mount-{node}")}}}});
        make(cluster, "/api/v1/persistentvolumes", object).await;
        make(cluster, &format!("{default}/secrets"), named(&format!("mount-{node}"))).await;
        pods.push(
            make(cluster, &format!("{default}/pods"), pod(&format!("pod-{node}"), node)).await,
        );
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        make(cluster, leases, lease(node)).await;
        make(cluster, leases, lease(&format!("skiff-proxy-{node}"))).await;
        make(
            cluster,
            "/apis/storage.k8s.io/v1/csinodes",
            json!({"metadata": {"name": node}, "spec": {"drivers": []}}),
        )
        .await;
    }
    make(cluster, &format!("{default}/secrets"), named("of-nobody")).await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices";
    make(cluster, slices, slice("kube-dns-n2", "n2")).await;
    let signer = "kubernetes.io/kube-apiserver-client-kubelet";
    let mut signing = csr("system:node:n3", "system:nodes", signer);
    signing["metadata"] = json!({"name": "waiting"});
    make(cluster, "/apis/certificates.k8s.io/v1/certificatesigningrequests", signing).await;
    [pods.remove(0), pods.remove(0)]
}

type Row = (Who, &'static str, Value, u16);

/// Reads.
fn reads() -> Vec<Row> {
    use Who::{Bootstrap, Kubelet, Network};
    let by_node = "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn1";
    [
        // Own pods' objects, and nobody else's.
        (Kubelet, "GET /api/v1/namespaces/default/secrets/secret-n1", 200),
        (Kubelet, "GET /api/v1/namespaces/default/secrets/mount-n1", 200),
        (Kubelet, "GET /api/v1/namespaces/default/secrets/secret-n2", 403),
        (Kubelet, "GET /api/v1/namespaces/default/secrets/mount-n2", 403),
        (Kubelet, "GET /api/v1/namespaces/default/secrets/of-nobody", 403),
        (Kubelet, "GET /api/v1/namespaces/default/secrets/missing", 403),
        (Kubelet, "GET /api/v1/namespaces/default/secrets", 403),
        (Kubelet, "GET /api/v1/secrets", 403),
        (Kubelet, "GET /api/v1/secrets?watch=true", 403),
        (Kubelet, "GET /api/v1/namespaces/default/secrets?watch=true&fieldSelector=metadata.name%3Dsecret-n1", 200),
        (Kubelet, "GET /api/v1/namespaces/default/secrets?watch=true&fieldSelector=metadata.name%3Dsecret-n2", 403),
        (Kubelet, "GET /api/v1/namespaces/default/secrets?fieldSelector=metadata.name!%3Dx", 403),
        (Kubelet, "GET /api/v1/namespaces/default/configmaps/map-n1", 200),
        (Kubelet, "GET /api/v1/namespaces/default/configmaps/map-n2", 403),
        (Kubelet, "GET /api/v1/namespaces/kube-system/configmaps", 403),
        (Kubelet, "GET /api/v1/namespaces/default/serviceaccounts/robot-n1", 200),
        (Kubelet, "GET /api/v1/namespaces/default/serviceaccounts/robot-n2", 403),
        (Kubelet, "GET /api/v1/namespaces/default/persistentvolumeclaims/claim-n1", 200),
        (Kubelet, "GET /api/v1/namespaces/default/persistentvolumeclaims/claim-n2", 403),
        (Kubelet, "GET /api/v1/persistentvolumes/volume-n1", 200),
        (Kubelet, "GET /api/v1/persistentvolumes/volume-n2", 403),
        (Kubelet, "GET /api/v1/persistentvolumes", 403),
        (Kubelet, "GET /api/v1/nodes/n1", 200),
        (Kubelet, "GET /api/v1/nodes/n2", 403),
        (Kubelet, "GET /api/v1/nodes", 403),
        (Kubelet, "GET /api/v1/namespaces/default/pods/pod-n1", 200),
        (Kubelet, "GET /api/v1/namespaces/default/pods/pod-n2", 403),
        (Kubelet, "GET /api/v1/pods", 403),
        (Kubelet, by_node, 200),
        (Kubelet, "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn2", 403),
        (Kubelet, "GET /api/v1/pods?fieldSelector=spec.nodeName!%3Dn1", 403),
        (Kubelet, "GET /api/v1/namespaces/default/pods/pod-n1/log", 403),
        (Kubelet, "GET /api/v1/namespaces/default/pods/pod-n1/proxy/", 403),
        (Kubelet, "GET /api/v1/nodes/n1/proxy/pods", 403),
        (Kubelet, "GET /api/v1/nodes/n2/proxy/pods", 403),
        (Kubelet, "GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1", 200),
        (Kubelet, "GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2", 403),
        (Kubelet, "GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", 403),
        (Kubelet, "GET /apis/storage.k8s.io/v1/csinodes/n2", 403),
        (Kubelet, "GET /apis/discovery.k8s.io/v1/endpointslices", 403),
        (Kubelet, "GET /api/v1/namespaces", 403),
        (Kubelet, "GET /api/v1/events", 403),
        (Kubelet, "GET /apis/rbac.authorization.k8s.io/v1/clusterroles", 403),
        (Kubelet, "GET /api/v1/services", 200),
        (Kubelet, "GET /metrics", 403),
        // The network sees what traffic is about, and nothing that is secret.
        (Network, "GET /api/v1/services", 200),
        (Network, "GET /api/v1/nodes", 200),
        (Network, "GET /api/v1/namespaces", 200),
        (Network, "GET /api/v1/pods", 200),
        (Network, "GET /apis/discovery.k8s.io/v1/endpointslices?watch=true", 200),
        (Network, "GET /apis/networking.k8s.io/v1/networkpolicies", 200),
        (Network, "GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", 200),
        (Network, "GET /apis/coordination.k8s.io/v1/namespaces/kube-system/leases", 403),
        (Network, "GET /api/v1/namespaces/default/secrets/secret-n1", 403),
        (Network, "GET /api/v1/secrets", 403),
        (Network, "GET /api/v1/configmaps", 403),
        (Network, "GET /api/v1/namespaces/kube-system/configmaps", 403),
        (Network, "GET /api/v1/namespaces/kube-system/configmaps/kube-dns", 404),
        (Network, "GET /api/v1/namespaces/kube-system/configmaps/skiff-cluster", 403),
        (Network, "GET /api/v1/namespaces/default/configmaps/map-n1", 403),
        (Network, "GET /api/v1/namespaces/default/serviceaccounts", 403),
        (Network, "GET /api/v1/namespaces/default/pods/pod-n1/log", 403),
        (Network, "GET /api/v1/namespaces/default/pods/pod-n1/proxy/", 403),
        (Network, "GET /api/v1/nodes/n1/proxy/pods", 403),
        (Network, "GET /apis/certificates.k8s.io/v1/certificatesigningrequests", 403),
        (Network, "GET /skiff/v1/tunnel", 403),
        // A join token is good for asking to join.
        (Bootstrap, "GET /api/v1/nodes", 403),
        (Bootstrap, "GET /api/v1/pods", 403),
        (Bootstrap, "GET /api/v1/namespaces/kube-system/secrets", 403),
        (Bootstrap, "GET /api/v1/namespaces/kube-system/configmaps", 403),
        (Bootstrap, "GET /skiff/v1/tunnel", 403),
    ]
    .map(|(who, request, code)| (who, request, Value::Null, code))
    .into()
}

/// Writes by the kubelet's identity.
fn kubelet_writes(own: &Value, other: &Value) -> Vec<Row> {
    let label = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    let mirror = |node: &str, spec: Value| {
        let mut pod = pod("mirror", node);
        pod["spec"] = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}]});
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        if let (Some(into), Some(from)) = (pod["spec"].as_object_mut(), spec.as_object()) {
            into.extend(from.clone());
        }
        pod
    };
    let ready = json!({"status": {"phase": "Running"}});
    let tunnelled = json!({"spec": {"unschedulable": true}});
    let leases = "POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let signing = "POST /apis/certificates.k8s.io/v1/certificatesigningrequests";
    let kubelet_signer = "kubernetes.io/kube-apiserver-client-kubelet";
    [
        ("PATCH /api/v1/nodes/n1/status", json!({"status": {"phase": "Running"}}), 200),
        ("PATCH /api/v1/nodes/n2/status", json!({"status": {"phase": "Running"}}), 403),
        ("PATCH /api/v1/nodes/n1", label("mine"), 200),
        ("PATCH /api/v1/nodes/n1", label("node.kubernetes.io/x"), 200),
        ("PATCH /api/v1/nodes/n1", label("node-role.kubernetes.io/control-plane"), 403),
        ("PATCH /api/v1/nodes/n1", label("node-restriction.kubernetes.io/tier"), 403),
        ("PATCH /api/v1/nodes/n1", label("x.node-restriction.kubernetes.io/tier"), 403),
        ("PATCH /api/v1/nodes/n1/status", label("node-restriction.kubernetes.io/tier"), 403),
        ("PATCH /api/v1/nodes/n2", label("mine"), 403),
        ("PATCH /api/v1/nodes/n1", json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}), 403),
        ("PATCH /api/v1/nodes/n2", tunnelled, 403),
        ("PATCH /api/v1/nodes/n1", json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]}}), 403),
        ("POST /api/v1/nodes", named("n3"), 403),
        ("POST /api/v1/nodes", named("n2"), 403),
        ("DELETE /api/v1/nodes/n1", Value::Null, 403),
        ("DELETE /api/v1/nodes/n2", Value::Null, 403),
        ("DELETE /api/v1/nodes", Value::Null, 403),
        // Pods: status of its own, mirror pods that lead nowhere, evictions of its own.
        ("PATCH /api/v1/namespaces/default/pods/pod-n1/status", ready.clone(), 200),
        ("PATCH /api/v1/namespaces/default/pods/pod-n2/status", ready, 403),
        ("PATCH /api/v1/namespaces/default/pods/pod-n1/status", label("app"), 403),
        ("PATCH /api/v1/namespaces/default/pods/pod-n1", label("app"), 403),
        ("POST /api/v1/namespaces/default/pods", pod("evil", "n1"), 403),
        ("POST /api/v1/namespaces/default/pods", pod("evil", "n2"), 403),
        ("POST /api/v1/namespaces/default/pods", mirror("n1", json!({})), 403),
        ("POST /api/v1/namespaces/kube-system/pods", mirror("n2", json!({})), 403),
        ("POST /api/v1/namespaces/default/pods", mirror("n1", json!({"volumes": [
            {"name": "s", "secret": {"secretName": "of-nobody"}}]})), 403),
        ("POST /api/v1/namespaces/default/pods/pod-n2/eviction", json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "pod-n2"}}), 403),
        ("DELETE /api/v1/namespaces/default/pods/pod-n2", Value::Null, 403),
        ("DELETE /api/v1/namespaces/default/pods", Value::Null, 403),
        ("POST /api/v1/namespaces/default/pods/pod-n2/binding", json!({
            "metadata": {"name": "pod-n2"}, "target": {"kind": "Node", "name": "n1"}}), 403),
        ("POST /api/v1/namespaces/default/pods/pod-n2/exec?command=sh", Value::Null, 403),
        ("POST /api/v1/namespaces/default/pods/pod-n1/exec?command=sh", Value::Null, 403),
        // Tokens: of the accounts of its own pods, bound to them, for audiences they name.
        ("POST /api/v1/namespaces/default/serviceaccounts/robot-n1/token", token(own, &[]), 201),
        ("POST /api/v1/namespaces/default/serviceaccounts/robot-n1/token", token(own, &["vault"]), 201),
        ("POST /api/v1/namespaces/default/serviceaccounts/robot-n1/token", token(own, &["bank"]), 403),
        ("POST /api/v1/namespaces/default/serviceaccounts/robot-n1/token", token(own, &["vault", "bank"]), 403),
        ("POST /api/v1/namespaces/default/serviceaccounts/robot-n1/token", json!({"spec": {"audiences": []}}), 403),
        ("POST /api/v1/namespaces/default/serviceaccounts/robot-n1/token", token(other, &[]), 400),
        ("POST /api/v1/namespaces/default/serviceaccounts/robot-n2/token", token(other, &[]), 403),
        ("POST /api/v1/namespaces/default/serviceaccounts/robot-n2/token", token(own, &[]), 403),
        ("POST /api/v1/namespaces/kube-system/serviceaccounts/default/token", token(own, &[]), 403),
        // Its lease, its CSINode.
        ("PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1",
            json!({"spec": {"holderIdentity": "n1"}}), 200),
        ("PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2",
            json!({"spec": {"holderIdentity": "n1"}}), 403),
        ("PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/skiff-proxy-n1",
            json!({"spec": {"holderIdentity": "n1"}}), 403),
        ("DELETE /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2", Value::Null, 403),
        (leases, lease("n3"), 403),
        ("POST /apis/coordination.k8s.io/v1/namespaces/kube-system/leases", lease("kube-scheduler"), 403),
        ("PATCH /apis/storage.k8s.io/v1/csinodes/n2", label("x"), 403),
        ("POST /apis/storage.k8s.io/v1/csinodes", json!({"metadata": {"name": "n3"}, "spec": {"drivers": []}}), 403),
        // Certificates: of its own name, and not approved by itself.
        (signing, csr("system:node:n1", "system:nodes", kubelet_signer), 201),
        (signing, csr("system:node:n2", "system:nodes", kubelet_signer), 403),
        (signing, csr("me", "system:masters", "kubernetes.io/kube-apiserver-client"), 403),
        (signing, csr("system:node:n2", "system:nodes", "kubernetes.io/kubelet-serving"), 403),
        ("PATCH /apis/certificates.k8s.io/v1/certificatesigningrequests/waiting/approval",
            json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r"}]}}), 403),
        ("PATCH /apis/certificates.k8s.io/v1/certificatesigningrequests/waiting/status",
            json!({"status": {"certificate": "eA=="}}), 403),
        ("DELETE /apis/certificates.k8s.io/v1/certificatesigningrequests/waiting", Value::Null, 403),
        // Nobody's objects but its own.
        ("POST /api/v1/namespaces/default/secrets", named("evil"), 403),
        ("PATCH /api/v1/namespaces/default/secrets/secret-n1", label("x"), 403),
        ("DELETE /api/v1/namespaces/default/secrets/secret-n1", Value::Null, 403),
        ("PATCH /api/v1/namespaces/default/configmaps/map-n1", label("x"), 403),
        ("PATCH /api/v1/namespaces/default/persistentvolumeclaims/claim-n1", label("x"), 403),
        ("PATCH /api/v1/namespaces/default/persistentvolumeclaims/claim-n1/status", json!({"status": {"phase": "Lost"}}), 403),
        ("PATCH /api/v1/namespaces/default/persistentvolumeclaims/claim-n2/status",
            json!({"status": {"capacity": {"storage": "2Gi"}}}), 403),
        ("POST /api/v1/namespaces/default/services", named("evil"), 403),
        ("PATCH /apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-n2", label("x"), 403),
        ("POST /apis/apps/v1/namespaces/default/deployments", named("evil"), 403),
        ("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", json!({
            "metadata": {"name": "evil"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}]}), 403),
    ]
    .map(|(request, body, code)| (Who::Kubelet, request, body, code))
    .into()
}

/// Writes by the network's identity and by a join token.
fn other_writes() -> Vec<Row> {
    use Who::{Bootstrap, Network};
    let held = json!({"spec": {"holderIdentity": "n1"}});
    vec![
        (
            Network,
            "PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/skiff-proxy-n1",
            held.clone(),
            200,
        ),
        (
            Network,
            "PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/skiff-proxy-n2",
            held.clone(),
            403,
        ),
        (
            Network,
            "PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1",
            held.clone(),
            403,
        ),
        (
            Network,
            "POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
            lease("skiff-proxy-n3"),
            403,
        ),
        (
            Network,
            "POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
            lease("n3"),
            403,
        ),
        (
            Network,
            "POST /apis/coordination.k8s.io/v1/namespaces/kube-system/leases",
            lease("skiff-proxy-n1"),
            403,
        ),
        (
            Network,
            "DELETE /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/skiff-proxy-n1",
            Value::Null,
            403,
        ),
        (
            Network,
            "POST /apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices",
            slice("kube-dns-n1", "n1"),
            201,
        ),
        (
            Network,
            "POST /apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices",
            slice("kube-dns6-n1", "n2"),
            403,
        ),
        (
            Network,
            "POST /apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices",
            slice("evil", "n1"),
            403,
        ),
        (
            Network,
            "PATCH /apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-n2",
            slice("kube-dns-n2", "n1"),
            403,
        ),
        (
            Network,
            "PATCH /apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-n1",
            json!({"metadata": {"labels": {"kubernetes.io/service-name": "metrics-server"}}}),
            403,
        ),
        (
            Network,
            "POST /apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            slice("kube-dns-n1", "n1"),
            403,
        ),
        (Network, "PATCH /api/v1/nodes/n2/status", json!({"status": {"phase": "Running"}}), 403),
        (Network, "PATCH /api/v1/nodes/n1", json!({"metadata": {"labels": {"a": "b"}}}), 403),
        (
            Network,
            "PATCH /api/v1/namespaces/kube-system/services/kube-dns",
            json!({"spec": {"externalIPs": ["1.2.3.4"]}}),
            403,
        ),
        (Network, "POST /api/v1/namespaces/default/services", named("evil"), 403),
        (
            Network,
            "PATCH /api/v1/namespaces/default/pods/pod-n1/status",
            json!({"status": {"podIP": "10.0.0.1"}}),
            403,
        ),
        (Network, "DELETE /api/v1/namespaces/default/pods/pod-n1", Value::Null, 403),
        (Network, "POST /api/v1/namespaces/default/pods", pod("evil", "n1"), 403),
        (
            Network,
            "POST /api/v1/namespaces/default/serviceaccounts/robot-n1/token",
            json!({"spec": {"audiences": []}}),
            403,
        ),
        (
            Network,
            "DELETE /apis/networking.k8s.io/v1/namespaces/default/networkpolicies/deny",
            Value::Null,
            403,
        ),
        (Bootstrap, "POST /api/v1/nodes", named("n3"), 403),
        (Bootstrap, "POST /api/v1/namespaces/default/pods", pod("evil", "n1"), 403),
        (
            Bootstrap,
            "PATCH /apis/certificates.k8s.io/v1/certificatesigningrequests/waiting/approval",
            json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r"}]}}),
            403,
        ),
        (Bootstrap, "DELETE /api/v1/nodes/n1", Value::Null, 403),
    ]
}

#[tokio::test]
async fn a_stolen_credential_reaches_its_own_node_and_no_further() {
    let cluster = Cluster::start().await;
    let server = cluster.listen(cluster.server.clone()).await;
    let [own, other] = world(&cluster).await;
    let thieves = [Who::Kubelet, Who::Network, Who::Bootstrap]
        .map(|who| (who, Thief::new(&cluster, server, who)));
    let rows = [reads(), kubelet_writes(&own, &other), other_writes()].concat();
    let mut wrong = Vec::new();
    for (who, request, body, expected) in rows {
        let (_, thief) = thieves.iter().find(|(known, _)| *known == who).expect("known");
        let (code, text) = thief.send(request, &body, &[]).await;
        if code != expected {
            wrong.push(format!("{who:?} {request}: {code} instead of {expected}: {text}"));
        }
    }
    // Nobody becomes somebody else.
    for (who, thief) in &thieves {
        for posing in [
            vec![("impersonate-user", "admin"), ("impersonate-group", "system:masters")],
            vec![("impersonate-user", "system:node:n2"), ("impersonate-group", "system:nodes")],
            vec![("impersonate-user", "system:serviceaccount:kube-system:default")],
        ] {
            let (code, text) = thief.send("GET /api/v1/services", &Value::Null, &posing).await;
            if code != 403 {
                wrong.push(format!("{who:?} as {posing:?}: {code}: {text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
