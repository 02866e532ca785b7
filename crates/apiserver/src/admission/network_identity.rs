//! A node's network identity writes only what belongs to its node: the lease of its proxy and the slice of its DNS,
//! which leads nowhere but to that node.
//!
//! Beside the authorizer, which cannot see the names and contents of what is created.

use meta::Status;
use registry::{Admit, Attributes, Operation, Row};
use serde_json::Value;

use super::{Admitted, decided, each, fine, forbid, text};
use crate::{
    authz::network::{ANNOUNCEMENTS, dns_slices, lease},
    identity::Identity,
};

/// The plugin.
pub(super) struct NetworkIdentity;

impl Admit for NetworkIdentity {
    fn name(&self) -> &'static str {
        "NetworkIdentity"
    }

    fn handles(&self, _: Operation, row: &Row, _: Option<&str>) -> bool {
        matches!(
            (row.resource.group.as_str(), row.resource.resource.as_str()),
            ("coordination.k8s.io", "leases") | ("discovery.k8s.io", "endpointslices")
        )
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> Admitted<'a> {
        match attributes.user.network_node() {
            None => fine(),
            Some(node) => decided(check(node, attributes, object)),
        }
    }
}

fn check(node: &str, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
    let refuse = |why: String| Err(forbid(attributes, object, why));
    let given = object.map(|object| text(&object["metadata"], "name")).unwrap_or_default();
    let name = if attributes.name.is_empty() { given } else { attributes.name };
    let slice = attributes.row.resource.resource == "endpointslices";
    if !slice && name.starts_with(ANNOUNCEMENTS) {
        // Leases that nodes take from each other: each for itself alone.
        let holder = object.map(|object| text(&object["spec"], "holderIdentity"));
        return match holder.filter(|holder| !holder.is_empty() && *holder != node) {
            None => Ok(()),
            Some(_) => refuse(format!("the network of node {node:?} can hold {name} only itself")),
        };
    }
    let own = if slice { dns_slices(node).to_vec() } else { vec![lease(node)] };
    if !own.iter().any(|own| own == name) {
        let own = own.join(" and ");
        return refuse(format!("the network of node {node:?} can only write {own} here"));
    }
    let elsewhere = |object: &Value| {
        let service = &object["metadata"]["labels"]["kubernetes.io/service-name"];
        *service != "kube-dns" || each(object, "endpoints").any(|one| text(one, "nodeName") != node)
    };
    if slice && object.is_some_and(elsewhere) {
        return refuse(format!("the DNS of node {node:?} is on that node and nowhere else"));
    }
    Ok(())
}
