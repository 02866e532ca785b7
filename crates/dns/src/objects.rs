//! The API objects by which the rest of the cluster finds its DNS: one Service, and one
//! EndpointSlice a node that leads to the server on that node.
//!
//! Traffic stays on the node (`internalTrafficPolicy: Local`): every node answers for itself.

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use client::ErrorExt;

use crate::DnsOptions;

const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kube-dns";

/// Why the objects could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// No address to lead to.
    #[error("cluster DNS listens on no IPv4 address")]
    Address,
    /// The API server refused.
    #[error("make {what} {NAMESPACE}/{name}")]
    Api {
        /// The kind.
        what: &'static str,
        /// The object's name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Makes the Service `kube-system/kube-dns` and this node's EndpointSlice, or makes them right
/// again. What users added to the Service is kept.
pub async fn register(client: Client, options: &DnsOptions) -> Result<(), RegisterError> {
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let made = ensure(&services, SERVICE, &service(options)).await;
    let service = made.map_err(failed("Service", SERVICE))?;
    let uid = service.metadata.uid.unwrap_or_default();
    let name = format!("{SERVICE}-{}", options.node_name);
    let slice = slice(options, &name, &uid).ok_or(RegisterError::Address)?;
    let slices: Api<EndpointSlice> = Api::namespaced(client, NAMESPACE);
    ensure(&slices, &name, &slice).await.map_err(failed("EndpointSlice", &name))?;
    Ok(())
}

fn failed(what: &'static str, name: &str) -> impl FnOnce(kube::Error) -> RegisterError {
    let name = name.to_owned();
    move |source| RegisterError::Api { what, name, source: Box::new(source) }
}

/// Merges into the object, or creates it where there is none.
async fn ensure<K>(api: &Api<K>, name: &str, wanted: &Value) -> Result<K, kube::Error>
where
    K: client::Object + serde::Serialize + std::fmt::Debug,
{
    match api.patch(name, &PatchParams::default(), &Patch::Merge(wanted)).await {
        Err(error) if error.is_not_found() => {
            let object = serde_json::from_value(wanted.clone()).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &object).await
        }
        outcome => outcome,
    }
}

fn service(options: &DnsOptions) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": SERVICE,
            "namespace": NAMESPACE,
            "labels": {
                "k8s-app": SERVICE,
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": options.service_ip,
            "clusterIPs": [options.service_ip],
            "internalTrafficPolicy": "Local",
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    })
}

fn slice(options: &DnsOptions, name: &str, uid: &str) -> Option<Value> {
    let listen = options.listen.iter().find(|address| address.is_ipv4())?;
    let mut metadata = json!({
        "name": name,
        "namespace": NAMESPACE,
        "labels": {
            "kubernetes.io/service-name": SERVICE,
            "endpointslice.kubernetes.io/managed-by": "dns.skiff.dev",
        },
    });
    if !uid.is_empty() {
        metadata["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "Service", "name": SERVICE, "uid": uid}]);
    }
    Some(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": [listen.ip()],
            "nodeName": options.node_name,
            "conditions": {"ready": true, "serving": true, "terminating": false},
        }],
        "ports": [
            {"name": "dns", "port": listen.port(), "protocol": "UDP"},
            {"name": "dns-tcp", "port": listen.port(), "protocol": "TCP"},
        ],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slice_leads_to_this_node() {
        let options = DnsOptions::new("node-1", [10, 244, 0, 1].into());
        let slice = slice(&options, "kube-dns-node-1", "u").expect("slice");
        let slice: EndpointSlice = serde_json::from_value(slice).expect("object");
        let endpoints = slice.endpoints.expect("endpoints");
        assert_eq!(endpoints[0].addresses, ["10.244.0.1"]);
        assert_eq!(endpoints[0].node_name.as_deref(), Some("node-1"));
        let service: Service = serde_json::from_value(service(&options)).expect("object");
        let spec = service.spec.expect("spec");
        let names = |name: &Option<String>| name.clone().unwrap_or_default();
        let in_service: Vec<String> =
            spec.ports.iter().flatten().map(|port| names(&port.name)).collect();
        let in_slice: Vec<String> =
            slice.ports.iter().flatten().map(|port| names(&port.name)).collect();
        assert_eq!(in_service, in_slice);
    }
}
