//! Which admission plugins are asked, and what they are told: flags and the configuration file.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::{DefaultTolerationSeconds, each, text};

/// What admission is told.
#[derive(Clone, Debug, Default)]
pub struct AdmissionOptions {
    /// Plugins to ask beside those that are asked by default.
    pub enabled: Vec<String>,
    /// Plugins not to ask.
    pub disabled: Vec<String>,
    /// What the plugins are told, by name.
    pub plugins: BTreeMap<String, Value>,
    /// How long pods stay on nodes that do not work, unless they say so themselves.
    pub tolerations: DefaultTolerationSeconds,
}

/// Why admission cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// No plugin has that name.
    #[error("admission plugin {0:?} is unknown")]
    Unknown(String),
    /// A plugin of Kubernetes that is not there.
    #[error("admission plugin {0:?} is not supported")]
    Unsupported(String),
    /// A plugin is both asked for and not.
    #[error("{0:?} in enable-admission-plugins and disable-admission-plugins")]
    Both(String),
    /// A plugin cannot make sense of what it is told.
    #[error("configuration of admission plugin {plugin:?}: {reason}")]
    Configuration {
        /// The plugin.
        plugin: String,
        /// What is wrong.
        reason: String,
    },
    /// The configuration file cannot be read.
    #[error("admission configuration {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// When a plugin is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Always,
    OnDemand,
    /// Upstream has it, on or off by default, and it is not there.
    Missing,
    MissingByDefault,
}

/// Kubernetes' plugins in Kubernetes' order.
const PLUGINS: &[(&str, Asked)] = &[
    ("AlwaysAdmit", Asked::OnDemand),
    ("NamespaceAutoProvision", Asked::OnDemand),
    ("NamespaceLifecycle", Asked::Always),
    ("NamespaceExists", Asked::OnDemand),
    ("LimitPodHardAntiAffinityTopology", Asked::OnDemand),
    ("LimitRanger", Asked::Always),
    ("ServiceAccount", Asked::Always),
    // Upstream asks it on demand; here kubelets are never trusted without it.
    ("NodeRestriction", Asked::Always),
    ("TaintNodesByCondition", Asked::Always),
    ("AlwaysPullImages", Asked::OnDemand),
    ("ImagePolicyWebhook", Asked::Missing),
    ("PodSecurity", Asked::Always),
    ("PodNodeSelector", Asked::OnDemand),
    ("Priority", Asked::Always),
    ("DefaultTolerationSeconds", Asked::Always),
    ("PodTolerationRestriction", Asked::OnDemand),
    ("EventRateLimit", Asked::OnDemand),
    ("ExtendedResourceToleration", Asked::OnDemand),
    ("DefaultStorageClass", Asked::Always),
    ("StorageObjectInUseProtection", Asked::Always),
    ("PodGroupProtection", Asked::MissingByDefault),
    ("OwnerReferencesPermissionEnforcement", Asked::OnDemand),
    ("PersistentVolumeClaimResize", Asked::Always),
    ("RuntimeClass", Asked::Always),
    ("CertificateApproval", Asked::Always),
    ("CertificateSigning", Asked::Always),
    ("ClusterTrustBundleAttest", Asked::Always),
    ("CertificateSubjectRestriction", Asked::Always),
    ("DefaultIngressClass", Asked::Always),
    ("DenyServiceExternalIPs", Asked::OnDemand),
    ("PodTopologyLabels", Asked::Always),
    ("PodGroupWorkloadExists", Asked::MissingByDefault),
    ("NodeDeclaredFeatureValidator", Asked::Always),
    ("JobValidation", Asked::MissingByDefault),
    ("PodResizeValidator", Asked::Always),
    ("MutatingAdmissionPolicy", Asked::MissingByDefault),
    ("MutatingAdmissionWebhook", Asked::MissingByDefault),
    ("ValidatingAdmissionPolicy", Asked::MissingByDefault),
    ("ValidatingAdmissionWebhook", Asked::MissingByDefault),
    ("ResourceQuota", Asked::Always),
    ("AlwaysDeny", Asked::Missing),
];

impl AdmissionOptions {
    /// The plugins to ask, in order.
    ///
    /// # Errors
    /// A name that is no plugin's, or asked for twice in different ways.
    pub(super) fn chosen(&self) -> Result<Vec<&'static str>, AdmissionError> {
        for name in self.enabled.iter().chain(&self.disabled) {
            let known = PLUGINS.iter().find(|(known, _)| known == name);
            let (_, asked) = known.ok_or_else(|| AdmissionError::Unknown(name.clone()))?;
            let enabled = self.enabled.contains(name);
            if enabled && self.disabled.contains(name) {
                return Err(AdmissionError::Both(name.clone()));
            }
            if enabled && *asked == Asked::Missing {
                return Err(AdmissionError::Unsupported(name.clone()));
            }
        }
        let is_in = |list: &[String], name: &str| list.iter().any(|one| one == name);
        Ok(PLUGINS
            .iter()
            .filter(|(name, asked)| {
                (*asked == Asked::Always || is_in(&self.enabled, name))
                    && !is_in(&self.disabled, name)
            })
            .map(|(name, _)| *name)
            .collect())
    }

    /// What a plugin is told; null if nothing.
    pub(super) fn configuration(&self, plugin: &str) -> &Value {
        self.plugins.get(plugin).unwrap_or(&Value::Null)
    }

    /// Reads an `AdmissionConfiguration`, with the files it names.
    ///
    /// # Errors
    /// When a file cannot be read or makes no sense.
    pub fn read(&mut self, path: &Path) -> Result<(), AdmissionError> {
        let file = yaml(path)?;
        let bad = |reason: &str| AdmissionError::File {
            path: path.display().to_string(),
            reason: reason.to_owned(),
        };
        if text(&file, "kind") != "AdmissionConfiguration" {
            return Err(bad("it is no AdmissionConfiguration"));
        }
        for plugin in each(&file, "plugins") {
            let name = text(plugin, "name");
            if !PLUGINS.iter().any(|(known, _)| *known == name) {
                return Err(AdmissionError::Unknown(name.to_owned()));
            }
            let told = match text(plugin, "path") {
                "" => plugin["configuration"].clone(),
                // As upstream: beside the file that names it.
                other => yaml(&path.parent().unwrap_or(Path::new("")).join(other))?,
            };
            if self.plugins.insert(name.to_owned(), told).is_some() {
                return Err(bad(&format!("it names {name} twice")));
            }
        }
        Ok(())
    }
}

/// Reads a file of YAML or JSON.
fn yaml(path: &Path) -> Result<Value, AdmissionError> {
    let bad = |reason: String| AdmissionError::File { path: path.display().to_string(), reason };
    let bytes = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    let json = codec::yaml::to_json(&bytes).map_err(|error| bad(error.to_string()))?;
    serde_json::from_slice(&json).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_choose_among_kubernetes_plugins() {
        let chosen = |enabled: &[&str], disabled: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let options = AdmissionOptions {
                enabled: owned(enabled),
                disabled: owned(disabled),
                ..AdmissionOptions::default()
            };
            options.chosen().map_err(|error| error.to_string())
        };
        let usual = chosen(&[], &[]).expect("valid");
        assert_eq!(usual.first(), Some(&"NamespaceLifecycle"));
        assert_eq!(usual.last(), Some(&"ResourceQuota"));
        assert!(!usual.contains(&"AlwaysPullImages"));
        let other = chosen(&["AlwaysPullImages"], &["LimitRanger"]).expect("valid");
        assert!(other.contains(&"AlwaysPullImages") && !other.contains(&"LimitRanger"));
        assert!(chosen(&[], &["MutatingAdmissionWebhook"]).is_ok());
        assert!(chosen(&["NoSuch"], &[]).is_err_and(|error| error.contains("is unknown")));
        assert!(chosen(&["ImagePolicyWebhook"], &[]).is_err());
        assert!(chosen(&["PodSecurity"], &["PodSecurity"]).is_err());
    }

    #[test]
    fn the_file_tells_plugins_what_they_need() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("admission.yaml");
        std::fs::write(
            directory.path().join("events.yaml"),
            "limits: [{type: Server, qps: 1, burst: 2}]",
        )
        .expect("written");
        let file = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n\
            - name: PodSecurity\n  configuration: {defaults: {enforce: baseline}}\n\
            - name: EventRateLimit\n  path: events.yaml\n";
        std::fs::write(&path, file).expect("written");
        let mut options = AdmissionOptions::default();
        options.read(&path).expect("valid");
        assert_eq!(options.configuration("PodSecurity")["defaults"]["enforce"], "baseline");
        assert_eq!(options.configuration("EventRateLimit")["limits"][0]["burst"], 2);
        std::fs::write(&path, "kind: Pod").expect("written");
        assert!(AdmissionOptions::default().read(&path).is_err());
    }
}
