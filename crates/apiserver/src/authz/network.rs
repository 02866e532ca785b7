//! What a node's network identity may write: the lease on which its proxy publishes, the slice of its own DNS, the
//! status of its own node. What it reads is the same for all nodes, and RBAC's to say.
//!
//! Names of objects to be created stand in their bodies: those are for admission to check.

use registry::UserInfo;

use super::Attributes;
use crate::identity::Identity;

/// Name of the lease on which a node's proxy publishes what it has programmed.
pub(crate) fn lease(node: &str) -> String {
    format!("skiff-proxy-{node}")
}

/// What the names of leases begin with by which nodes agree on who announces which addresses.
pub(crate) const ANNOUNCEMENTS: &str = "skiff-announce-";

/// Names of the slices that lead to a node's own DNS, one a family.
pub(crate) fn dns_slices(node: &str) -> [String; 2] {
    [format!("kube-dns-{node}"), format!("kube-dns6-{node}")]
}

/// Whether this is a write of one of a node's own network objects.
pub(super) fn allows(user: &UserInfo, request: &Attributes<'_>) -> bool {
    let Some(node) = user.network_node().filter(|_| request.resource_request) else { return false };
    let Attributes { group, resource, subresource, namespace, name, .. } = *request;
    let own = |own: &[String]| match request.verb {
        "create" if name.is_empty() => true,
        "create" | "get" | "update" | "patch" => own.iter().any(|own| own == name),
        _ => false,
    };
    match (group, resource, subresource) {
        ("coordination.k8s.io", "leases", "") => {
            let shared =
                name.starts_with(ANNOUNCEMENTS) && matches!(request.verb, "update" | "patch");
            namespace == "kube-node-lease" && (shared || own(&[lease(node)]))
        }
        ("discovery.k8s.io", "endpointslices", "") => {
            namespace == "kube-system" && own(&dns_slices(node))
        }
        ("", "nodes", "status") => matches!(request.verb, "update" | "patch") && name == node,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{NETWORK, authenticated};

    fn check(verb: &str, resource: &str, namespace: &str, name: &str, expected: bool) {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let group = match resource {
            "leases" => "coordination.k8s.io",
            "endpointslices" => "discovery.k8s.io",
            _ => "",
        };
        let request = Attributes {
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
            resource_request: true,
            ..Attributes::default()
        };
        let user = authenticated("skiff:network:a", [NETWORK]);
        assert_eq!(allows(&user, &request), expected, "{verb} {resource} {namespace}/{name}");
        let poser = authenticated("skiff:network:a", ["other"]);
        assert!(!allows(&poser, &request));
    }

    #[test]
    fn own_objects_only() {
        check("patch", "leases", "kube-node-lease", "skiff-proxy-a", true);
        check("create", "leases", "kube-node-lease", "", true);
        check("update", "leases", "kube-node-lease", "skiff-proxy-b", false);
        check("update", "leases", "kube-node-lease", "a", false);
        check("update", "leases", "kube-node-lease", "skiff-announce-3", true);
        check("delete", "leases", "kube-node-lease", "skiff-announce-3", false);
        check("delete", "leases", "kube-node-lease", "skiff-proxy-a", false);
        check("create", "leases", "kube-system", "", false);
        check("patch", "endpointslices", "kube-system", "kube-dns-a", true);
        check("patch", "endpointslices", "kube-system", "kube-dns6-a", true);
        check("patch", "endpointslices", "kube-system", "kube-dns-b", false);
        check("patch", "endpointslices", "default", "kube-dns-a", false);
        check("patch", "nodes/status", "", "a", true);
        check("patch", "nodes/status", "", "b", false);
        check("patch", "nodes", "", "a", false);
        check("get", "secrets", "kube-system", "s", false);
    }
}
