//! Registry credentials from a pod's image pull secrets.

use std::collections::HashMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use cri::{ImageReference, v1};
use k8s_openapi::api::core::v1 as api;
use kube::Api;
use serde::Deserialize;
use tracing::debug;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, Entry>,
}

#[derive(Deserialize, Default, Clone)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
}

/// The credentials for an image, in the order of the pod's secrets.
pub(super) async fn of_pod(
    client: &kube::Client,
    pod: &api::Pod,
    image: &str,
) -> Vec<v1::AuthConfig> {
    let names: Vec<String> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.image_pull_secrets.iter().flatten())
        .map(|reference| reference.name.clone())
        .collect();
    let (false, Ok(reference)) = (names.is_empty(), ImageReference::parse(image)) else {
        return Vec::new();
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let secrets: Api<api::Secret> = Api::namespaced(client.clone(), namespace);
    let mut found = Vec::new();
    for name in names {
        match secrets.get_opt(&name).await {
            Ok(Some(secret)) => found.extend(of_secret(&secret, &reference)),
            Ok(None) => debug!(secret = name, "image pull secret not found"),
            Err(error) => debug!(secret = name, %error, "image pull secret could not be read"),
        }
    }
    found
}

fn of_secret(secret: &api::Secret, image: &ImageReference) -> Vec<v1::AuthConfig> {
    let data = secret.data.clone().unwrap_or_default();
    let auths = if let Some(config) = data.get(".dockerconfigjson") {
        serde_json::from_slice::<DockerConfig>(&config.0).map(|c| c.auths).unwrap_or_default()
    } else if let Some(config) = data.get(".dockercfg") {
        serde_json::from_slice(&config.0).unwrap_or_default()
    } else {
        HashMap::new()
    };
    let mut matching: Vec<_> =
        auths.into_iter().filter(|(registry, _)| matches(registry, image)).collect();
    // The most specific registry path first.
    matching.sort_by_key(|(registry, _)| std::cmp::Reverse(registry.len()));
    matching.into_iter().filter_map(|(registry, entry)| auth(registry, entry)).collect()
}

/// Whether a registry, written with or without scheme and path, covers an image.
fn matches(registry: &str, image: &ImageReference) -> bool {
    let bare =
        registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let host_matches =
        host == image.domain() || (image.domain() == "docker.io" && host == "index.docker.io");
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    let below = image.repository() == path || image.repository().starts_with(&format!("{path}/"));
    host_matches && (path.is_empty() || below)
}

fn auth(registry: String, entry: Entry) -> Option<v1::AuthConfig> {
    let (username, password) = if entry.auth.is_empty() {
        (entry.username, entry.password)
    } else {
        let decoded = String::from_utf8(BASE64_STANDARD.decode(entry.auth).ok()?).ok()?;
        let (username, password) = decoded.split_once(':')?;
        (username.to_owned(), password.to_owned())
    };
    Some(v1::AuthConfig { username, password, server_address: registry, ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_cover_images() {
        let image = ImageReference::parse("quay.io/team/app:1").unwrap();
        assert!(matches("https://quay.io", &image));
        assert!(matches("quay.io/team", &image));
        assert!(!matches("quay.io/tea", &image));
        assert!(!matches("docker.io", &image));
        assert!(matches("https://index.docker.io/v1/", &ImageReference::parse("nginx").unwrap()));
    }
}
