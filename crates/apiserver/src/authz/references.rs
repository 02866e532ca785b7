//! What other objects a pod names: the relation by which kubelets are authorized.
//!
//! Reads a pod as JSON; knows nothing of who asks.

use std::collections::BTreeSet;

use serde_json::Value;

/// The objects a pod refers to, by name in its namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References<'a> {
    /// Secrets: pull secrets, environment, volumes.
    pub secrets: BTreeSet<&'a str>,
    /// ConfigMaps: environment, volumes.
    pub config_maps: BTreeSet<&'a str>,
    /// PersistentVolumeClaims, without those of ephemeral volumes.
    pub claims: BTreeSet<&'a str>,
    /// ResourceClaims, named directly or generated from a template.
    pub resource_claims: BTreeSet<&'a str>,
    /// The service account.
    pub service_account: Option<&'a str>,
}

impl<'a> References<'a> {
    /// Collects what `pod` refers to.
    pub fn of(pod: &'a Value) -> Self {
        let mut found = Self::default();
        let spec = &pod["spec"];
        found.service_account = text(&spec["serviceAccountName"]);
        for secret in list(&spec["imagePullSecrets"]) {
            found.secrets.extend(text(&secret["name"]));
        }
        for containers in ["containers", "initContainers", "ephemeralContainers"] {
            list(&spec[containers]).for_each(|container| found.container(container));
        }
        list(&spec["volumes"]).for_each(|volume| found.volume(volume));
        for claim in list(&spec["resourceClaims"]) {
            found.resource_claims.extend(text(&claim["resourceClaimName"]));
        }
        for claim in list(&pod["status"]["resourceClaimStatuses"]) {
            found.resource_claims.extend(text(&claim["resourceClaimName"]));
        }
        found
    }

    fn container(&mut self, container: &'a Value) {
        for source in list(&container["envFrom"]) {
            self.secrets.extend(text(&source["secretRef"]["name"]));
            self.config_maps.extend(text(&source["configMapRef"]["name"]));
        }
        for variable in list(&container["env"]) {
            let source = &variable["valueFrom"];
            self.secrets.extend(text(&source["secretKeyRef"]["name"]));
            self.config_maps.extend(text(&source["configMapKeyRef"]["name"]));
        }
    }

    fn volume(&mut self, volume: &'a Value) {
        self.secrets.extend(text(&volume["secret"]["secretName"]));
        self.secrets.extend(text(&volume["azureFile"]["secretName"]));
        self.secrets.extend(text(&volume["csi"]["nodePublishSecretRef"]["name"]));
        for driver in ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"] {
            self.secrets.extend(text(&volume[driver]["secretRef"]["name"]));
        }
        self.config_maps.extend(text(&volume["configMap"]["name"]));
        self.claims.extend(text(&volume["persistentVolumeClaim"]["claimName"]));
        for source in list(&volume["projected"]["sources"]) {
            self.secrets.extend(text(&source["secret"]["name"]));
            self.config_maps.extend(text(&source["configMap"]["name"]));
        }
    }

    /// The resource of an object that the pod refers to, if it refers to any.
    pub fn first(pod: &Value) -> Option<&'static str> {
        let found = References::of(pod);
        let volumes = || list(&pod["spec"]["volumes"]);
        let projects = |source: &str| {
            let mut sources = volumes().flat_map(|volume| list(&volume["projected"]["sources"]));
            sources.any(|projected| !projected[source].is_null())
        };
        let has = |source: &str| volumes().any(|volume| !volume[source].is_null());
        let claims = list(&pod["spec"]["resourceClaims"]).next().is_some();
        [
            ("serviceaccounts", found.service_account.is_some()),
            ("secrets", !found.secrets.is_empty()),
            ("configmaps", !found.config_maps.is_empty()),
            ("resourceclaims", claims || !found.resource_claims.is_empty()),
            ("clustertrustbundles", projects("clusterTrustBundle")),
            ("podcertificaterequests", projects("podCertificate")),
            ("persistentvolumeclaims", !found.claims.is_empty() || has("ephemeral")),
            ("endpoints", has("glusterfs")),
        ]
        .into_iter()
        .find_map(|(resource, refers)| refers.then_some(resource))
    }

    /// The claims a pod uses, those of ephemeral volumes (`<pod>-<volume>`) included.
    pub fn claims_of(pod: &Value) -> BTreeSet<String> {
        let mut claims: BTreeSet<String> =
            References::of(pod).claims.into_iter().map(str::to_owned).collect();
        let name = text(&pod["metadata"]["name"]).unwrap_or_default();
        let ephemeral = list(&pod["spec"]["volumes"]).filter(|v| !v["ephemeral"].is_null());
        claims.extend(ephemeral.filter_map(|v| Some(format!("{name}-{}", text(&v["name"])?))));
        claims
    }

    /// Whether the pod uses the claim.
    pub fn uses_claim(pod: &Value, claim: &str) -> bool {
        References::claims_of(pod).contains(claim)
    }
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_references_wherever_a_pod_may_put_them() {
        let pod = json!({
            "metadata": {"name": "web"},
            "spec": {
                "serviceAccountName": "robot",
                "imagePullSecrets": [{"name": "pull"}],
                "containers": [{
                    "env": [
                        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "env-secret", "key": "k"}}},
                        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "env-map", "key": "k"}}}],
                    "envFrom": [{"secretRef": {"name": "all-secret"}}, {"configMapRef": {"name": "all-map"}}]}],
                "volumes": [
                    {"name": "s", "secret": {"secretName": "vol-secret"}},
                    {"name": "e", "ephemeral": {}},
                    {"name": "p", "persistentVolumeClaim": {"claimName": "data"}},
                    {"name": "t", "projected": {"sources": [
                        {"configMap": {"name": "kube-root-ca.crt"}}, {"secret": {"name": "proj"}}]}}]
            }
        });
        let found = References::of(&pod);
        assert_eq!(
            found.secrets.into_iter().collect::<Vec<_>>(),
            ["all-secret", "env-secret", "proj", "pull", "vol-secret"]
        );
        assert_eq!(
            found.config_maps.into_iter().collect::<Vec<_>>(),
            ["all-map", "env-map", "kube-root-ca.crt"]
        );
        assert_eq!(found.service_account, Some("robot"));
        assert!(References::uses_claim(&pod, "data") && References::uses_claim(&pod, "web-e"));
        assert!(!References::uses_claim(&pod, "web-s"));
        assert_eq!(References::first(&pod), Some("serviceaccounts"));
        let volumes = json!({"spec": {"volumes": [{"emptyDir": {}}, {"ephemeral": {}}]}});
        assert_eq!(References::first(&volumes), Some("persistentvolumeclaims"));
        assert_eq!(References::first(&json!({"spec": {"volumes": [{"hostPath": {}}]}})), None);
    }
}
