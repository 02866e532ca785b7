//! The kubeconfig file that lets an identity reach a server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::Identity;

/// A kubeconfig (JSON, which is YAML too) with one cluster, one user and one context, all embedded.
pub fn kubeconfig(name: &str, server: &str, authority: &str, identity: &Identity) -> String {
    let user = format!("{name}-admin");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(authority),
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "users": [{"name": user, "user": {
            "client-certificate-data": STANDARD.encode(&identity.certificate),
            "client-key-data": STANDARD.encode(&identity.key),
        }}],
    });
    format!("{config:#}\n")
}
