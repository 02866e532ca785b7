//! ServiceAccount: every pod runs as an account that exists, with a token, the cluster's CA and its namespace
//! mounted unless it opts out.

use std::time::Duration;

use meta::{Status, quote};
use registry::{Admit, Attributes, Operation, Row};
use serde_json::{Value, json};

use super::{
    Admitted, child, decided, each, failed, fine, forbid, is_core, is_pod, list, read, secrets,
    text,
};
use crate::authz::References;

const MIRROR: &str = "kubernetes.io/config.mirror";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Lifetime of mounted tokens in seconds; the odd number tells the token endpoint that old clients, which do
/// not reread the file, must be borne with.
pub(crate) const TOKEN_SECONDS: i64 = 3607;
/// The account of pods that name none is made by a controller right after its namespace.
const DEFAULT: &str = "default";
/// How often, and how far apart, the default account is looked for.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// The plugin.
pub(super) struct ServiceAccount;

impl Admit for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        match operation {
            Operation::Create => is_pod(row, subresource),
            Operation::Update => is_core(row, "pods") && subresource == Some("ephemeralcontainers"),
            _ => false,
        }
    }

    fn mutate<'a>(&'a self, attributes: &'a Attributes<'a>, pod: &'a mut Value) -> Admitted<'a> {
        if attributes.operation != Operation::Create || is_mirror(pod) {
            return fine();
        }
        Box::pin(async move {
            let spec = child(pod, "spec");
            if text(spec, "serviceAccountName").is_empty() {
                let legacy = text(spec, "serviceAccount");
                let name = if legacy.is_empty() { DEFAULT } else { legacy };
                spec["serviceAccountName"] = name.to_owned().into();
            }
            spec["serviceAccount"] = spec["serviceAccountName"].clone();
            let name = text(spec, "serviceAccountName").to_owned();
            let namespace = attributes.namespace.unwrap_or_default();
            let Some(account) = find(attributes, namespace, &name).await else {
                let why = format!(
                    "error looking up service account {namespace}/{name}: serviceaccount {} not found",
                    quote(&name)
                );
                return Err(forbid(attributes, Some(pod), why));
            };
            complete(pod, &account);
            Ok(())
        })
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> Admitted<'a> {
        match object {
            Some(pod) if attributes.operation == Operation::Create && is_mirror(pod) => {
                decided(mirror(attributes, pod))
            }
            Some(pod) => decided(uses_secrets(attributes, pod)),
            None => fine(),
        }
    }
}

fn is_mirror(pod: &Value) -> bool {
    !pod["metadata"]["annotations"][MIRROR].is_null()
}

async fn find(attributes: &Attributes<'_>, namespace: &str, name: &str) -> Option<Value> {
    let attempts = if name == DEFAULT { ATTEMPTS } else { 1 };
    for attempt in 0..attempts {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        if let Some(account) = read(attributes, "", "serviceaccounts", Some(namespace), name) {
            return Some(account);
        }
    }
    None
}

/// What the account adds to its pods.
fn complete(pod: &mut Value, account: &Value) {
    let own = pod["spec"]["automountServiceAccountToken"].as_bool();
    if own.or(account["automountServiceAccountToken"].as_bool()).unwrap_or(true) {
        mount(child(pod, "spec"));
    }
    if each(&pod["spec"], "imagePullSecrets").next().is_none()
        && let Some(secrets) =
            account["imagePullSecrets"].as_array().filter(|secrets| !secrets.is_empty())
    {
        child(pod, "spec")["imagePullSecrets"] = Value::Array(secrets.clone());
    }
}

fn mount(spec: &mut Value) {
    let present = each(spec, "volumes").map(|volume| text(volume, "name"));
    let present =
        present.into_iter().find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned);
    let name =
        present.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", meta::names::random(5)));
    let mut needed = false;
    for containers in ["initContainers", "containers"] {
        let containers = spec[containers].as_array_mut().into_iter().flatten();
        for container in containers {
            if each(container, "volumeMounts").any(|mount| text(mount, "mountPath") == MOUNT_PATH) {
                continue;
            }
            needed = true;
            list(container, "volumeMounts")
                .push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
        }
    }
    if needed && present.is_none() {
        list(spec, "volumes").push(volume(&name));
    }
}

fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}
    ]}})
}

/// The account may limit which secrets its pods use.
fn uses_secrets(attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    let (namespace, name) = (attributes.namespace, text(&pod["spec"], "serviceAccountName"));
    let Some(account) = read(attributes, "", "serviceaccounts", namespace, name) else {
        return Ok(());
    };
    if attributes.operation == Operation::Create {
        return secrets::unlisted(pod, &account)
            .map_or(Ok(()), |why| Err(forbid(attributes, Some(pod), why)));
    }
    // Upstream says this one without more ado.
    secrets::unlisted_ephemeral(pod, &account).map_or(Ok(()), |why| Err(failed(why)))
}

/// Mirror pods show what a kubelet runs on its own; nothing of the API may leak into them.
fn mirror(attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    let used = References::of(pod);
    let mut sources =
        each(&pod["spec"], "volumes").flat_map(|volume| each(&volume["projected"], "sources"));
    let why = match () {
        () if used.service_account.is_some() => "a mirror pod may not reference service accounts",
        () if !used.secrets.is_empty() => "a mirror pod may not reference secrets",
        () if sources.any(|source| !source["serviceAccountToken"].is_null()) => {
            "a mirror pod may not use ServiceAccountToken volume projections"
        }
        () => return Ok(()),
    };
    Err(forbid(attributes, Some(pod), why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_mounted_once_into_every_container() {
        let mut pod = json!({"spec": {
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]
        }});
        let account = json!({"imagePullSecrets": [{"name": "pull"}]});
        complete(&mut pod, &account);
        complete(&mut pod, &account);
        let spec = &pod["spec"];
        assert_eq!(spec["volumes"].as_array().map(Vec::len), Some(1));
        let name = &spec["volumes"][0]["name"];
        assert!(name.as_str().is_some_and(|name| name.len() == VOLUME_PREFIX.len() + 5));
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], *name);
        assert_eq!(spec["initContainers"][0]["volumeMounts"].as_array().map(Vec::len), Some(1));
        assert_eq!(spec["containers"][1]["volumeMounts"].as_array().map(Vec::len), Some(1));
        assert_eq!(spec["imagePullSecrets"][0]["name"], "pull");
    }

    #[test]
    fn a_pod_overrides_its_account() {
        let account = json!({"automountServiceAccountToken": false});
        let mut quiet = json!({"spec": {"containers": [{"name": "a"}]}});
        complete(&mut quiet, &account);
        assert!(quiet["spec"]["volumes"].is_null());
        let mut loud =
            json!({"spec": {"automountServiceAccountToken": true, "containers": [{"name": "a"}]}});
        complete(&mut loud, &account);
        assert!(loud["spec"]["volumes"].is_array());
    }
}
