//! The API objects by which the rest of the cluster finds its DNS: one Service, and one
//! EndpointSlice a node that leads to the server on that node.
//!
//! Traffic stays on the node (`internalTrafficPolicy: Local`): every node answers for itself.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use client::ErrorExt;

use crate::DnsOptions;

pub(crate) const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kube-dns";

/// Why the objects could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// No address to lead to.
    #[error("cluster DNS listens on no address")]
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

/// Makes the Service `kube-system/kube-dns`, or makes it right again. What users added to it is kept. For the control
/// plane: a node has no right to say where the cluster's DNS is.
pub async fn register_service(client: Client, service_ips: &[IpAddr]) -> Result<(), RegisterError> {
    let services: Api<Service> = Api::namespaced(client, NAMESPACE);
    let made = ensure(&services, SERVICE, &service(service_ips)).await;
    made.map(drop).map_err(failed("Service", SERVICE))
}

/// Makes this node's EndpointSlices of the Service, which must be there, or makes them right again.
pub async fn register(client: Client, options: &DnsOptions) -> Result<(), RegisterError> {
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let service = services.get(SERVICE).await.map_err(failed("Service", SERVICE))?;
    let uid = service.metadata.uid.unwrap_or_default();
    let slices: Api<EndpointSlice> = Api::namespaced(client, NAMESPACE);
    let mut made = false;
    for address in &options.service_ips {
        let name = slice_name(options, *address);
        let Some(slice) = slice(options, *address, &uid) else { continue };
        ensure(&slices, &name, &slice).await.map_err(failed("EndpointSlice", &name))?;
        made = true;
    }
    if made { Ok(()) } else { Err(RegisterError::Address) }
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

fn service(service_ips: &[IpAddr]) -> Value {
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
            "clusterIP": service_ips.first(),
            "clusterIPs": service_ips,
            "ipFamilyPolicy": if service_ips.len() > 1 { "RequireDualStack" } else { "SingleStack" },
            "ipFamilies": service_ips.iter().copied().map(family).collect::<Vec<_>>(),
            "internalTrafficPolicy": "Local",
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    })
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// One slice a family and node.
fn slice_name(options: &DnsOptions, service_ip: IpAddr) -> String {
    match service_ip {
        IpAddr::V4(_) => format!("{SERVICE}-{}", options.node_name),
        // No node's name can make this the name above.
        IpAddr::V6(_) => format!("{SERVICE}6-{}", options.node_name),
    }
}

/// The slice that leads from the Service's address to this node's server of the same family.
fn slice(options: &DnsOptions, service_ip: IpAddr, uid: &str) -> Option<Value> {
    let same = |address: &&SocketAddr| address.is_ipv4() == service_ip.is_ipv4();
    let listen = options.listen.iter().find(same)?;
    let mut metadata = json!({
        "name": slice_name(options, service_ip),
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
        "addressType": family(service_ip),
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
        let options = DnsOptions::new("node-1", [10, 244, 0, 1]);
        let slice = slice(&options, options.service_ips[0], "u").expect("slice");
        let slice: EndpointSlice = serde_json::from_value(slice).expect("object");
        let endpoints = slice.endpoints.expect("endpoints");
        assert_eq!(endpoints[0].addresses, ["10.244.0.1"]);
        assert_eq!(endpoints[0].node_name.as_deref(), Some("node-1"));
        let service: Service =
            serde_json::from_value(service(&options.service_ips)).expect("object");
        let spec = service.spec.expect("spec");
        let names = |name: &Option<String>| name.clone().unwrap_or_default();
        let in_service: Vec<String> =
            spec.ports.iter().flatten().map(|port| names(&port.name)).collect();
        let in_slice: Vec<String> =
            slice.ports.iter().flatten().map(|port| names(&port.name)).collect();
        assert_eq!(in_service, in_slice);
    }
}
