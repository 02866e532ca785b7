//! How a machine becomes a node of a cluster that is elsewhere, and stays one: `join` finds out whom to
//! trust, `request` obtains certificates, `rotate` keeps them fresh, `servers` learns where servers are.

mod join;
mod request;
mod rotate;
mod servers;

pub(super) use join::{Join, join};

use pki::Profile;

use super::node::serving_profile;
use super::options::NodePlan;

/// A certificate that a node has, and how it asks for it.
#[derive(Clone)]
struct Wanted {
    /// File below the key directory, and what the request's name begins with.
    name: &'static str,
    /// The signer.
    signer: &'static str,
    /// Beside signing.
    usage: &'static str,
    profile: Profile,
}

impl Wanted {
    /// As the kubelet.
    fn kubelet(node: &NodePlan) -> Self {
        Self {
            name: "kubelet-client",
            signer: "kubernetes.io/kube-apiserver-client-kubelet",
            usage: "client auth",
            profile: Profile::client(format!("system:node:{}", node.name), Some("system:nodes")),
        }
    }

    /// As the node's network.
    fn network(node: &NodePlan) -> Self {
        Self {
            name: "network-client",
            signer: "kubernetes.io/kube-apiserver-client",
            usage: "client auth",
            profile: Profile::client(format!("skiff:network:{}", node.name), Some("skiff:network")),
        }
    }

    /// What the kubelet's API presents.
    fn serving(node: &NodePlan) -> Self {
        Self {
            name: "kubelet-serving",
            signer: "kubernetes.io/kubelet-serving",
            usage: "server auth",
            profile: serving_profile(node),
        }
    }
}
