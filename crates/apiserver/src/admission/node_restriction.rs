//! NodeRestriction: a kubelet changes its own node, lease and CSI node and the status of its own pods, and asks for
//! certificates of its own name.
//!
//! Tokens are not stored: who may ask for which is said where they are made.

use base64::{Engine, prelude::BASE64_STANDARD};
use meta::{GroupResource, Status};
use registry::{Admit, Attributes, Operation, Row};
use serde_json::Value;

use super::{Admitted, decided, each, fine, forbid, read, text};
use crate::{
    authz::References,
    identity::{Identity, NODE_PREFIX},
};

/// The signers of kubelets' certificates.
const KUBELET_SIGNERS: [&str; 2] =
    ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Labels of Kubernetes' own namespaces that a kubelet may set on its node.
const KUBELET_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/windows-build",
];
/// Namespaces of labels, suffixes included, that are the kubelet's.
const KUBELET_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// The plugin.
pub(super) struct NodeRestriction;

impl Admit for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, _: Operation, row: &Row, _: Option<&str>) -> bool {
        matches!(
            (row.resource.group.as_str(), row.resource.resource.as_str()),
            ("", "pods" | "nodes" | "persistentvolumeclaims")
                | ("certificates.k8s.io", "certificatesigningrequests")
                | ("coordination.k8s.io", "leases")
                | ("storage.k8s.io", "csinodes")
                | ("resource.k8s.io", "resourceslices")
        )
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> Admitted<'a> {
        // Only kubelets are restricted.
        let Some(node) = attributes.user.node() else { return fine() };
        let check = Check { node, attributes, object };
        decided(if node.is_empty() {
            Err(check
                .refuse(format!("could not determine node from user {:?}", attributes.user.name)))
        } else {
            check.run()
        })
    }
}

struct Check<'a> {
    node: &'a str,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
}

type Verdict = Result<(), Status>;

impl Check<'_> {
    fn run(&self) -> Verdict {
        let subresource = self.attributes.subresource.unwrap_or_default();
        match (self.attributes.row.resource.resource.as_str(), subresource) {
            ("pods", "") => self.pod(),
            ("pods", "status") => self.pod_status(),
            ("pods", "eviction") => self.eviction(),
            ("pods", other) => Err(self.refuse(format!(
                "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
            ))),
            ("nodes", _) => self.own_node(),
            ("persistentvolumeclaims", "status") => self.claim_status(),
            ("persistentvolumeclaims", _) => Err(self.refuse("may only update PVC status")),
            ("certificatesigningrequests", "") if self.creates() => self.signing_request(),
            ("leases", _) => self.lease(),
            ("csinodes", _) => self.named_after_node("CSINode"),
            ("resourceslices", _) => self.resource_slice(),
            _ => Ok(()),
        }
    }

    fn refuse(&self, why: impl std::fmt::Display) -> Status {
        forbid(self.attributes, self.object, why)
    }

    fn creates(&self) -> bool {
        self.attributes.operation == Operation::Create
    }

    fn unexpected(&self) -> Status {
        self.refuse(format!("unexpected operation {:?}", self.attributes.operation.as_str()))
    }

    fn pod(&self) -> Verdict {
        let node = self.node;
        match (self.attributes.operation, self.object, self.attributes.old) {
            (Operation::Create, Some(pod), _) => self.mirror_pod(pod),
            (Operation::Delete, _, Some(pod)) if text(&pod["spec"], "nodeName") == node => Ok(()),
            (Operation::Delete, ..) => Err(self.refuse(format!(
                "node {node:?} can only delete pods with spec.nodeName set to itself"
            ))),
            (operation, ..) => Err(self.refuse(format!(
                "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
                operation.as_str()
            ))),
        }
    }

    fn mirror_pod(&self, pod: &Value) -> Verdict {
        let node = self.node;
        let why = match () {
            () if pod["metadata"]["annotations"][MIRROR].is_null() => format!(
                "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
            ),
            () if text(&pod["spec"], "nodeName") != node => {
                format!("node {node:?} can only create pods with spec.nodeName set to itself")
            }
            () => {
                self.mirror_owner(pod)?;
                match References::first(pod) {
                    None => return Ok(()),
                    Some(resource) => {
                        format!("node {node:?} can not create pods that reference {resource}")
                    }
                }
            }
        };
        Err(self.refuse(why))
    }

    fn mirror_owner(&self, pod: &Value) -> Verdict {
        let node = self.node;
        let owners: Vec<&Value> = each(&pod["metadata"], "ownerReferences").collect();
        let owner = match owners.as_slice() {
            [owner] => owner,
            [] => {
                return Err(self.refuse(format!(
                    "node {node:?} can only create pods with an owner reference set to itself"
                )));
            }
            _ => {
                return Err(self.refuse(format!(
                    "node {node:?} can only create pods with a single owner reference set to itself"
                )));
            }
        };
        let itself = text(owner, "apiVersion") == "v1"
            && text(owner, "kind") == "Node"
            && text(owner, "name") == node;
        let why = match () {
            () if !itself => {
                format!("node {node:?} can only create pods with an owner reference set to itself")
            }
            () if owner["controller"] != true => format!(
                "node {node:?} can only create pods with a controller owner reference set to itself"
            ),
            () if owner["blockOwnerDeletion"] == true => {
                format!("node {node:?} must not set blockOwnerDeletion on an owner reference")
            }
            () => {
                let Some(stored) = read(self.attributes, "", "nodes", None, node) else {
                    return Err(Status::not_found(&GroupResource::new("", "nodes"), node));
                };
                let (given, known) = (text(owner, "uid"), text(&stored["metadata"], "uid"));
                if given == known {
                    return Ok(());
                }
                format!("node {node} UID mismatch: expected {given} got {known}")
            }
        };
        Err(self.refuse(why))
    }

    fn pod_status(&self) -> Verdict {
        let (Operation::Update, Some(pod), Some(old)) =
            (self.attributes.operation, self.object, self.attributes.old)
        else {
            return Err(self.unexpected());
        };
        let node = self.node;
        if text(&old["spec"], "nodeName") != node {
            return Err(self.refuse(format!(
                "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
            )));
        }
        if pod["metadata"]["labels"] != old["metadata"]["labels"] {
            return Err(
                self.refuse(format!("node {node:?} cannot update labels through pod status"))
            );
        }
        let claims = |pod: &Value| -> Vec<(String, Value)> {
            let each = each(&pod["status"], "resourceClaimStatuses");
            each.map(|one| (text(one, "name").to_owned(), one["resourceClaimName"].clone()))
                .collect()
        };
        if claims(pod) != claims(old) {
            return Err(self.refuse(format!("node {node:?} cannot update resource claim statues")));
        }
        let extended = |pod: &Value| pod["status"]["extendedResourceClaimStatus"].clone();
        if extended(pod) != extended(old) {
            return Err(
                self.refuse(format!("node {node:?} cannot update extended resource claim status"))
            );
        }
        Ok(())
    }

    fn eviction(&self) -> Verdict {
        if !self.creates() {
            return Err(self.unexpected());
        }
        let namespace = self.attributes.namespace;
        let given =
            self.object.map(|eviction| text(&eviction["metadata"], "name")).unwrap_or_default();
        let name = if self.attributes.name.is_empty() { given } else { self.attributes.name };
        let Some(pod) = read(self.attributes, "", "pods", namespace, name) else {
            return Err(Status::not_found(&GroupResource::new("", "pods"), name));
        };
        if text(&pod["spec"], "nodeName") == self.node {
            return Ok(());
        }
        Err(self.refuse(format!(
            "node {} can only evict pods with spec.nodeName set to itself",
            self.node
        )))
    }

    fn own_node(&self) -> Verdict {
        let node = self.node;
        let object = self.object.unwrap_or(&Value::Null);
        let given = text(&object["metadata"], "name");
        let name = if self.attributes.name.is_empty() { given } else { self.attributes.name };
        if name != node {
            return Err(
                self.refuse(format!("node {node:?} is not allowed to modify node {name:?}"))
            );
        }
        let source = &object["spec"]["configSource"];
        if self.creates() {
            // What a node's spec names, the node may read.
            if !source.is_null() {
                return Err(self.refuse(format!(
                    "node {node:?} is not allowed to create pods with a non-nil configSource"
                )));
            }
            return self.labels(object, &Value::Null).map_err(|labels| {
                self.refuse(format!(
                    "node {node:?} is not allowed to set the following labels: {labels}"
                ))
            });
        }
        let (Operation::Update, Some(old)) = (self.attributes.operation, self.attributes.old)
        else {
            return Ok(());
        };
        if !source.is_null() && *source != old["spec"]["configSource"] {
            return Err(self.refuse(format!(
                "node {node:?} is not allowed to update configSource to a new non-nil configSource"
            )));
        }
        if !same(&object["spec"]["taints"], &old["spec"]["taints"]) {
            return Err(self.refuse(format!("node {node:?} is not allowed to modify taints")));
        }
        if !same(&object["metadata"]["ownerReferences"], &old["metadata"]["ownerReferences"]) {
            return Err(
                self.refuse(format!("node {node:?} is not allowed to modify ownerReferences"))
            );
        }
        self.labels(object, old)
            .map_err(|labels| self.refuse(format!("is not allowed to modify labels: {labels}")))
    }

    /// The error names the labels that differ and are not the kubelet's to set.
    fn labels(&self, object: &Value, old: &Value) -> Result<(), String> {
        let mut forbidden = changed_labels(object, old);
        forbidden.retain(|label| is_restricted(label) || !may_set(label));
        if forbidden.is_empty() { Ok(()) } else { Err(forbidden.join(", ")) }
    }

    fn claim_status(&self) -> Verdict {
        let (Operation::Update, Some(claim), Some(old)) =
            (self.attributes.operation, self.object, self.attributes.old)
        else {
            return Err(self.unexpected());
        };
        let rest = |claim: &Value| {
            let mut claim = claim.clone();
            for field in ["resourceVersion", "managedFields"] {
                claim["metadata"].as_object_mut().map(|metadata| metadata.remove(field));
            }
            let status = claim["status"].as_object_mut();
            if let Some(status) = status {
                for field in
                    ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"]
                {
                    status.remove(field);
                }
            }
            claim
        };
        if rest(claim) == rest(old) {
            return Ok(());
        }
        Err(self.refuse(format!(
            "node {:?} is not allowed to update fields other than status.quantity and status.conditions",
            self.node
        )))
    }

    /// A kubelet asks for certificates of its own name.
    fn signing_request(&self) -> Verdict {
        let spec = self.object.map_or(&Value::Null, |object| &object["spec"]);
        if !KUBELET_SIGNERS.contains(&text(spec, "signerName")) {
            return Ok(());
        }
        let pem = BASE64_STANDARD.decode(text(spec, "request")).unwrap_or_default();
        let request = pki::SigningRequest::from_pem(&pem)
            .map_err(|error| self.refuse(format!("unable to parse csr: {error}")))?;
        let name = format!("{NODE_PREFIX}{}", self.node);
        if request.subject.common_name == name {
            return Ok(());
        }
        Err(self.refuse(format!("can only create a node CSR with CN={name}")))
    }

    fn lease(&self) -> Verdict {
        // The node itself must not be named in a lease elsewhere.
        if self.attributes.namespace != Some("kube-node-lease") {
            return Err(
                self.refuse("can only access leases in the \"kube-node-lease\" system namespace")
            );
        }
        self.named_after_node("node lease")
    }

    fn named_after_node(&self, what: &str) -> Verdict {
        let given = self.object.map(|object| text(&object["metadata"], "name")).unwrap_or_default();
        let name = if self.attributes.name.is_empty() { given } else { self.attributes.name };
        if name == self.node {
            return Ok(());
        }
        Err(self
            .refuse(format!("can only access {what} with the same name as the requesting node")))
    }

    fn resource_slice(&self) -> Verdict {
        let slice = self.object.or(self.attributes.old).unwrap_or(&Value::Null);
        if text(&slice["spec"], "nodeName") == self.node {
            return Ok(());
        }
        let verb = match self.attributes.operation {
            Operation::Create => "create",
            Operation::Delete => "delete",
            _ => return Ok(()),
        };
        Err(self.refuse(format!(
            "can only {verb} ResourceSlice with the same NodeName as the requesting node"
        )))
    }
}

/// An absent list is an empty one.
fn same(left: &Value, right: &Value) -> bool {
    let empty = |value: &Value| value.as_array().is_none_or(Vec::is_empty);
    left == right || (empty(left) && empty(right))
}

fn changed_labels<'a>(object: &'a Value, old: &'a Value) -> Vec<&'a str> {
    let (new, old) = (&object["metadata"]["labels"], &old["metadata"]["labels"]);
    let keys =
        |labels: &'a Value| labels.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    let mut changed: Vec<&str> =
        keys(new).chain(keys(old)).filter(|key| new[*key] != old[*key]).collect();
    changed.sort_unstable();
    changed.dedup();
    changed
}

fn within(namespace: &str, parent: &str) -> bool {
    namespace == parent || namespace.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
}

/// Labels by which administrators keep workloads apart.
fn is_restricted(label: &str) -> bool {
    let namespace = label.split_once('/').map_or("", |(namespace, _)| namespace);
    within(namespace, "node-restriction.kubernetes.io")
}

fn may_set(label: &str) -> bool {
    let namespace = label.split_once('/').map_or("", |(namespace, _)| namespace);
    let reserved = within(namespace, "kubernetes.io") || within(namespace, "k8s.io");
    !reserved
        || KUBELET_LABELS.contains(&label)
        || KUBELET_NAMESPACES.iter().any(|parent| within(namespace, parent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kubelets_set_only_their_own_labels() {
        for label in [
            "kubernetes.io/hostname",
            "node.kubernetes.io/x",
            "a.kubelet.kubernetes.io/x",
            "mine",
            "a.b/c",
        ] {
            assert!(may_set(label) && !is_restricted(label), "{label}");
        }
        for label in ["node-role.kubernetes.io/control-plane", "k8s.io/x", "a.k8s.io/x"] {
            assert!(!may_set(label), "{label}");
        }
        assert!(is_restricted("x.node-restriction.kubernetes.io/a"));
        assert!(!is_restricted("xnode-restriction.kubernetes.io/a"));
    }

    #[test]
    fn changes_of_labels_are_found_both_ways() {
        let old = json!({"metadata": {"labels": {"a": "1", "b": "1"}}});
        let new = json!({"metadata": {"labels": {"b": "2", "c": "1"}}});
        assert_eq!(changed_labels(&new, &old), ["a", "b", "c"]);
        assert!(same(&Value::Null, &json!([])) && !same(&Value::Null, &json!([1])));
    }
}
