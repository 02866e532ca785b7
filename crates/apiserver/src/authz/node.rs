//! What a kubelet may do: its own node, the pods bound to it, and the objects those pods name.
//!
//! Relations are read from the stored pods at the moment of the question, so there is no graph that could be
//! stale. Refuses to know RBAC: what is not subdivided by node goes by the rules handed in.

use std::sync::Arc;

use registry::UserInfo;
use serde_json::Value;

use super::{Attributes, References, rule::Rule};
use crate::identity::Identity;

/// The reads that deciding about kubelets needs.
pub trait Lookup: Send + Sync {
    /// One object as JSON, from memory.
    fn object(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Value>>;
    /// The pods of a namespace that are bound to `node` and whose stored form mentions `mention`.
    fn pods_on(&self, node: &str, namespace: &str, mention: &str) -> Vec<Value>;
    /// Whether the object exists with this uid and, if it is being deleted, has been for less than a minute.
    fn lives(&self, group: &str, resource: &str, namespace: &str, name: &str, uid: &str) -> bool;
}

/// Whether a kubelet may do this. The error is why not, empty where Kubernetes says nothing, and for users
/// that are no kubelets.
pub(super) fn authorize(
    lookup: &dyn Lookup,
    rules: &[Rule],
    user: &UserInfo,
    request: &Attributes<'_>,
) -> Result<(), String> {
    let Some(node) = user.node() else { return Err(String::new()) };
    if node.is_empty() {
        return Err(format!("unknown node for user {:?}", user.name));
    }
    let kubelet = Kubelet { lookup, node, request };
    if request.resource_request {
        match (request.group, request.resource) {
            ("", "secrets" | "configmaps") => return kubelet.read_namespaced(),
            ("", "persistentvolumeclaims") if request.subresource == "status" => {
                return kubelet.update_status();
            }
            ("", "persistentvolumeclaims" | "persistentvolumes")
            | ("resource.k8s.io", "resourceclaims")
            | ("storage.k8s.io", "volumeattachments") => return kubelet.get(),
            ("", "serviceaccounts") => return kubelet.service_account(),
            ("coordination.k8s.io", "leases") => return kubelet.lease(),
            ("storage.k8s.io", "csinodes") => return kubelet.csi_node(),
            ("resource.k8s.io", "resourceslices") => return kubelet.resource_slice(),
            ("", "nodes") => return kubelet.own_node(),
            ("", "pods") => return kubelet.pod(),
            _ => {}
        }
    }
    if rules.iter().any(|rule| rule.allows(request)) { Ok(()) } else { Err(String::new()) }
}

struct Kubelet<'a> {
    lookup: &'a dyn Lookup,
    node: &'a str,
    request: &'a Attributes<'a>,
}

type Verdict = Result<(), String>;

fn refuse(reason: &str) -> Verdict {
    Err(reason.to_owned())
}

impl Kubelet<'_> {
    fn read_namespaced(&self) -> Verdict {
        match () {
            () if !matches!(self.request.verb, "get" | "list" | "watch") => {
                refuse("can only read resources of this type")
            }
            () if !self.request.subresource.is_empty() => refuse("cannot read subresource"),
            () if self.request.namespace.is_empty() => {
                refuse("can only read namespaced object of this type")
            }
            () => self.related(),
        }
    }

    fn get(&self) -> Verdict {
        match () {
            () if self.request.verb != "get" => {
                refuse("can only get individual resources of this type")
            }
            () if !self.request.subresource.is_empty() => refuse("cannot get subresource"),
            () => self.related(),
        }
    }

    fn update_status(&self) -> Verdict {
        if !matches!(self.request.verb, "update" | "patch") {
            return refuse("can only get/update/patch this type");
        }
        self.related()
    }

    fn service_account(&self) -> Verdict {
        match () {
            // Plugins that get credentials for images may want tokens of the pod's account.
            () if self.request.verb == "get" && self.request.subresource.is_empty() => {
                self.read_namespaced()
            }
            () if self.request.verb != "create" || self.request.name.is_empty() => {
                refuse("can only create tokens for individual service accounts")
            }
            () if self.request.subresource != "token" => {
                refuse("can only create token subresource of serviceaccount")
            }
            () => self.related(),
        }
    }

    fn lease(&self) -> Verdict {
        let Attributes { verb, namespace, name, .. } = self.request;
        match () {
            () if !matches!(*verb, "get" | "create" | "update" | "patch" | "delete") => {
                refuse("can only get, create, update, patch, or delete a node lease")
            }
            () if *namespace != "kube-node-lease" => {
                refuse("can only access leases in the \"kube-node-lease\" system namespace")
            }
            // The name of a lease to be created is for NodeRestriction to check.
            () if *verb != "create" && *name != self.node => {
                refuse("can only access node lease with the same name as the requesting node")
            }
            () => Ok(()),
        }
    }

    fn csi_node(&self) -> Verdict {
        let Attributes { verb, name, subresource, .. } = self.request;
        match () {
            () if !matches!(*verb, "get" | "create" | "update" | "patch" | "delete") => {
                refuse("can only get, create, update, patch, or delete a CSINode")
            }
            () if !subresource.is_empty() => refuse("cannot authorize CSINode subresources"),
            () if *verb != "create" && *name != self.node => {
                refuse("can only access CSINode with the same name as the requesting node")
            }
            () => Ok(()),
        }
    }

    fn resource_slice(&self) -> Verdict {
        if !self.request.subresource.is_empty() {
            return refuse("cannot authorize ResourceSlice subresources");
        }
        match self.request.verb {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(),
            "watch" | "list" | "deletecollection" if self.selects("spec.nodeName") => Ok(()),
            "watch" | "list" | "deletecollection" => refuse(
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            _ => refuse(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn own_node(&self) -> Verdict {
        let Attributes { verb, name, subresource, .. } = self.request;
        match (*subresource, *verb) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
            ("", "get" | "list" | "watch") if *name == self.node => Ok(()),
            ("", "get" | "list" | "watch") if name.is_empty() => {
                Err(format!("node '{}' cannot read all nodes, only its own Node object", self.node))
            }
            ("", "get" | "list" | "watch") => {
                Err(format!("node '{}' cannot read '{name}', only its own Node object", self.node))
            }
            _ => Err(String::new()),
        }
    }

    fn pod(&self) -> Verdict {
        match (self.request.subresource, self.request.verb) {
            ("", "get") => self.get(),
            ("", "list" | "watch") if self.selects("spec.nodeName") => Ok(()),
            ("", "list" | "watch") if !self.request.name.is_empty() => self.related(),
            ("", "list" | "watch") => {
                refuse("can only list/watch pods with spec.nodeName field selector")
            }
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Ok(())
            }
            _ => Err(String::new()),
        }
    }

    fn selects(&self, field: &str) -> bool {
        let mut terms = self.request.fields.iter();
        terms.any(|term| !term.negated && term.field == field && term.value == self.node)
    }

    /// Whether the object named leads to this node.
    fn related(&self) -> Verdict {
        if self.request.name.is_empty() {
            return refuse("No Object name found");
        }
        if self.leads_here() {
            return Ok(());
        }
        Err(format!("no relationship found between node '{}' and this object", self.node))
    }

    fn leads_here(&self) -> bool {
        let Attributes { group, resource, namespace, name, .. } = *self.request;
        let object = || self.lookup.object(group, resource, namespace, name);
        let bound_here =
            |object: Arc<Value>| object["spec"]["nodeName"].as_str() == Some(self.node);
        match resource {
            "secrets" => self.pod_names(|pod| pod.secrets.contains(name)) || self.volume_secret(),
            "configmaps" => self.pod_names(|pod| pod.config_maps.contains(name)),
            "serviceaccounts" => self.pod_names(|pod| pod.service_account == Some(name)),
            "resourceclaims" => self.pod_names(|pod| pod.resource_claims.contains(name)),
            "persistentvolumeclaims" => self.uses_claim(namespace, name),
            "persistentvolumes" => object().is_some_and(|volume| {
                let claim = &volume["spec"]["claimRef"];
                matches!(
                    (claim["namespace"].as_str(), claim["name"].as_str()),
                    (Some(namespace), Some(name)) if self.uses_claim(namespace, name)
                )
            }),
            "pods" | "volumeattachments" | "resourceslices" => object().is_some_and(bound_here),
            _ => false,
        }
    }

    fn pod_names(&self, names: impl Fn(&References<'_>) -> bool) -> bool {
        let namespace = self.request.namespace;
        self.pods(namespace, self.request.name).any(|pod| names(&References::of(&pod)))
    }

    fn uses_claim(&self, namespace: &str, claim: &str) -> bool {
        // The claim of an ephemeral volume is named after the pod and is not mentioned in it.
        self.pods(namespace, "").any(|pod| References::uses_claim(&pod, claim))
    }

    /// The node's pods that mention something. Mirror pods are the kubelet's own words and lead to nothing.
    fn pods(&self, namespace: &str, mention: &str) -> impl Iterator<Item = Value> {
        let pods = self.lookup.pods_on(self.node, namespace, mention).into_iter();
        pods.filter(|pod| pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null())
    }

    /// Secrets that a volume of a pod's claim needs to be mounted.
    fn volume_secret(&self) -> bool {
        let namespace = self.request.namespace;
        let leads = |claim: &str| {
            let claim = self.lookup.object("", "persistentvolumeclaims", namespace, claim);
            let volume = claim.and_then(|claim| {
                let name = claim["spec"]["volumeName"].as_str()?;
                self.lookup.object("", "persistentvolumes", "", name)
            });
            volume.is_some_and(|volume| self.mounts_with(&volume))
        };
        let mut pods = self.pods(namespace, "");
        pods.any(|pod| References::claims_of(&pod).iter().any(|claim| leads(claim)))
    }

    fn mounts_with(&self, volume: &Value) -> bool {
        let spec = &volume["spec"];
        let claim_namespace = &spec["claimRef"]["namespace"];
        let names = |secret: &Value, namespace: &Value| {
            secret.as_str() == Some(self.request.name)
                && namespace.as_str() == Some(self.request.namespace)
        };
        let csi = ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"];
        let other = ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"];
        csi.iter().any(|field| names(&spec["csi"][field]["name"], &spec["csi"][field]["namespace"]))
            || other.iter().any(|driver| {
                let secret = &spec[driver]["secretRef"];
                let namespace = if secret["namespace"].is_null() {
                    claim_namespace
                } else {
                    &secret["namespace"]
                };
                names(&secret["name"], namespace)
            })
            || names(&spec["azureFile"]["secretName"], claim_namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity;
    use meta::fields::FieldTerm;
    use serde_json::json;

    struct World(Vec<Value>);

    impl Lookup for World {
        fn object(
            &self,
            _: &str,
            resource: &str,
            namespace: &str,
            name: &str,
        ) -> Option<Arc<Value>> {
            let found = self.0.iter().find(|object| {
                object["resource"] == resource
                    && object["metadata"]["name"] == name
                    && object["metadata"]["namespace"].as_str().unwrap_or_default() == namespace
            });
            found.cloned().map(Arc::new)
        }

        fn pods_on(&self, node: &str, namespace: &str, _: &str) -> Vec<Value> {
            let pods = self.0.iter().filter(|object| {
                object["resource"] == "pods"
                    && object["spec"]["nodeName"] == node
                    && object["metadata"]["namespace"] == namespace
            });
            pods.cloned().collect()
        }

        fn lives(&self, group: &str, resource: &str, namespace: &str, name: &str, _: &str) -> bool {
            self.object(group, resource, namespace, name).is_some()
        }
    }

    fn world() -> World {
        World(vec![
            json!({"resource": "pods", "metadata": {"name": "p", "namespace": "d"},
                   "spec": {"nodeName": "a", "serviceAccountName": "robot",
                            "volumes": [{"secret": {"secretName": "s"}},
                                        {"persistentVolumeClaim": {"claimName": "data"}}]}}),
            json!({"resource": "pods", "metadata": {"name": "m", "namespace": "d",
                       "annotations": {"kubernetes.io/config.mirror": "x"}},
                   "spec": {"nodeName": "a", "volumes": [{"secret": {"secretName": "mirrored"}}]}}),
            json!({"resource": "persistentvolumeclaims", "metadata": {"name": "data", "namespace": "d"},
                   "spec": {"volumeName": "v"}}),
            json!({"resource": "persistentvolumes", "metadata": {"name": "v"},
                   "spec": {"claimRef": {"namespace": "d", "name": "data"},
                            "csi": {"nodeStageSecretRef": {"namespace": "d", "name": "stage"}}}}),
        ])
    }

    fn check(node: &str, verb: &str, resource: &str, name: &str, expected: Result<(), &str>) {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (group, resource) = match resource {
            "leases" => ("coordination.k8s.io", resource),
            _ => ("", resource),
        };
        let namespace = match resource {
            "nodes" | "persistentvolumes" => "",
            "leases" => "kube-node-lease",
            _ => "d",
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
        let user = identity::authenticated(format!("system:node:{node}"), [identity::NODES]);
        let verdict = authorize(&world(), &[], &user, &request);
        assert_eq!(verdict, expected.map_err(str::to_owned), "{node} {verb} {resource} {name}");
    }

    #[test]
    fn objects_of_own_pods_only() {
        let stranger = Err("no relationship found between node 'b' and this object");
        check("a", "get", "secrets", "s", Ok(()));
        check("a", "watch", "secrets", "s", Ok(()));
        check("a", "get", "secrets", "stage", Ok(()));
        check("b", "get", "secrets", "s", stranger);
        check("a", "list", "secrets", "", Err("No Object name found"));
        check("a", "delete", "secrets", "s", Err("can only read resources of this type"));
        check("a", "create", "serviceaccounts/token", "robot", Ok(()));
        check("a", "get", "serviceaccounts", "robot", Ok(()));
        check("b", "get", "serviceaccounts", "robot", stranger);
        check(
            "a",
            "get",
            "secrets",
            "mirrored",
            Err("no relationship found between node 'a' and this object"),
        );
        check("b", "create", "serviceaccounts/token", "robot", stranger);
        check("a", "get", "persistentvolumeclaims", "data", Ok(()));
        check("a", "get", "persistentvolumes", "v", Ok(()));
        check("b", "get", "persistentvolumes", "v", stranger);
        check("a", "get", "pods", "p", Ok(()));
        check("b", "get", "pods", "p", stranger);
    }

    #[test]
    fn own_node_and_lease_only() {
        check("a", "get", "nodes", "a", Ok(()));
        check("a", "patch", "nodes/status", "a", Ok(()));
        check("a", "get", "nodes", "b", Err("node 'a' cannot read 'b', only its own Node object"));
        check(
            "a",
            "list",
            "nodes",
            "",
            Err("node 'a' cannot read all nodes, only its own Node object"),
        );
        check("a", "update", "leases", "a", Ok(()));
        check("a", "create", "leases", "", Ok(()));
        check(
            "a",
            "update",
            "leases",
            "b",
            Err("can only access node lease with the same name as the requesting node"),
        );
    }

    #[test]
    fn pods_are_listed_by_node() {
        check(
            "a",
            "list",
            "pods",
            "",
            Err("can only list/watch pods with spec.nodeName field selector"),
        );
        let fields =
            [FieldTerm { field: "spec.nodeName".into(), negated: false, value: "a".into() }];
        let request = Attributes {
            verb: "watch",
            resource: "pods",
            resource_request: true,
            fields: &fields,
            ..Attributes::default()
        };
        let user =
            |node: &str| identity::authenticated(format!("system:node:{node}"), [identity::NODES]);
        assert!(authorize(&world(), &[], &user("a"), &request).is_ok());
        assert!(authorize(&world(), &[], &user("b"), &request).is_err());
    }
}
