//! The built-in admission plugins, one file each, and the order in which they are asked.
//!
//! Plugins see a write through [`registry::Attributes`] and read other objects through it. They refuse to know
//! HTTP and how the write came about.

mod anti_affinity;
mod certificates;
mod defaults;
mod devices;
mod escalation;
mod events;
mod external_ips;
mod lifecycle;
mod limits;
mod namespaces;
mod network_identity;
mod node_features;
mod node_restriction;
mod node_selector;
mod options;
mod owners;
mod parameters;
mod pod_security;
mod priority;
mod pull;
mod quota;
mod resize;
mod runtime_class;
mod secrets;
mod service_account;
mod storage;
mod taint;
mod tls_secrets;
mod tolerations;
mod topology;

pub use options::{AdmissionError, AdmissionOptions};
pub(crate) use service_account::TOKEN_SECONDS;
pub use tolerations::DefaultTolerationSeconds;

use std::sync::Arc;

use futures::future::BoxFuture;
use meta::{FieldError, Status};
use registry::{Admit, Attributes, Object, Row};
use serde_json::{Map, Value};

use crate::authz::Authorizer;

/// What a plugin's hooks return.
type Admitted<'a> = BoxFuture<'a, Result<(), Status>>;

/// A plugin to be used, if it is one.
type Made = Result<Option<Arc<dyn Admit>>, String>;

/// All plugins that the options ask for, in upstream's order, with skiff's own at the end.
///
/// # Errors
/// What is wrong with the options.
pub fn plugins(
    authorizer: &Arc<Authorizer>,
    options: &AdmissionOptions,
) -> Result<Vec<Arc<dyn Admit>>, AdmissionError> {
    let mut plugins: Vec<Arc<dyn Admit>> = Vec::new();
    for name in options.chosen()? {
        let made = make(name, authorizer, options, options.configuration(name));
        let bad = |reason| AdmissionError::Configuration { plugin: name.to_owned(), reason };
        plugins.extend(made.map_err(bad)?);
    }
    plugins.push(Arc::new(network_identity::NetworkIdentity));
    plugins.push(Arc::new(escalation::Escalation::new(authorizer.clone())));
    plugins.push(Arc::new(parameters::PolicyParameters(authorizer.clone())));
    plugins.push(Arc::new(tls_secrets::TlsSecrets));
    plugins.push(Arc::new(devices::DeviceAccess(authorizer.clone())));
    // Quota comes last: what is charged has passed everything else.
    plugins.sort_by_key(|plugin| plugin.name() == quota::NAME);
    Ok(plugins)
}

/// Makes the plugin of that name; none, where upstream has one that does nothing here.
fn make(
    name: &str,
    authorizer: &Arc<Authorizer>,
    options: &AdmissionOptions,
    configuration: &Value,
) -> Made {
    let authorizer = || authorizer.clone();
    Ok(Some(match name {
        "NamespaceAutoProvision" => Arc::new(namespaces::NamespaceAutoProvision),
        "NamespaceExists" => Arc::new(namespaces::NamespaceExists),
        "LimitPodHardAntiAffinityTopology" => {
            Arc::new(anti_affinity::LimitPodHardAntiAffinityTopology)
        }
        "NamespaceLifecycle" => Arc::new(lifecycle::NamespaceLifecycle),
        "LimitRanger" => Arc::new(limits::LimitRanger),
        "ServiceAccount" => Arc::new(service_account::ServiceAccount),
        "NodeRestriction" => Arc::new(node_restriction::NodeRestriction),
        "TaintNodesByCondition" => Arc::new(taint::TaintNodesByCondition),
        "AlwaysPullImages" => Arc::new(pull::AlwaysPullImages),
        "PodSecurity" => Arc::new(pod_security::PodSecurity::configured(configuration)?),
        "PodNodeSelector" => Arc::new(node_selector::PodNodeSelector::configured(configuration)),
        "Priority" => Arc::new(priority::Priority),
        "DefaultTolerationSeconds" => Arc::new(options.tolerations),
        "PodTolerationRestriction" => {
            Arc::new(tolerations::restriction::PodTolerationRestriction::configured(configuration))
        }
        "EventRateLimit" => Arc::new(events::EventRateLimit::configured(configuration)?),
        "ExtendedResourceToleration" => Arc::new(tolerations::ExtendedResourceToleration),
        "DefaultStorageClass" => Arc::new(defaults::DefaultStorageClass),
        "StorageObjectInUseProtection" => Arc::new(storage::StorageObjectInUseProtection),
        "OwnerReferencesPermissionEnforcement" => {
            Arc::new(owners::OwnerReferencesPermissionEnforcement(authorizer()))
        }
        "PersistentVolumeClaimResize" => Arc::new(storage::PersistentVolumeClaimResize),
        "RuntimeClass" => Arc::new(runtime_class::RuntimeClass),
        "CertificateApproval" => Arc::new(certificates::SignerRight::approval(authorizer())),
        "CertificateSigning" => Arc::new(certificates::SignerRight::signing(authorizer())),
        "ClusterTrustBundleAttest" => {
            Arc::new(certificates::ClusterTrustBundleAttest(authorizer()))
        }
        "CertificateSubjectRestriction" => Arc::new(certificates::SubjectRestriction),
        "DefaultIngressClass" => Arc::new(defaults::DefaultIngressClass),
        "DenyServiceExternalIPs" => Arc::new(external_ips::DenyServiceExternalIPs),
        "PodTopologyLabels" => Arc::new(topology::PodTopologyLabels),
        "NodeDeclaredFeatureValidator" => Arc::new(node_features::NodeDeclaredFeatureValidator),
        "PodResizeValidator" => Arc::new(resize::PodResizeValidator),
        quota::NAME => Arc::new(quota::ResourceQuota::configured(configuration)),
        _ => return Ok(None),
    }))
}

/// A refusal in the words of admission: 403 naming the object.
fn forbid(
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    why: impl std::fmt::Display,
) -> Status {
    let of = |field: &str| {
        let text = object.and_then(|object| object["metadata"][field].as_str());
        text.filter(|text| !text.is_empty())
    };
    let named = Some(attributes.name).filter(|name| !name.is_empty());
    let name = named.or_else(|| of("name")).or_else(|| of("generateName")).unwrap_or("Unknown");
    Status::forbidden(&attributes.row.group_resource(), name, why)
}

/// A refusal in the words of validation: 422 with what is wrong where.
fn invalid(write: &Attributes<'_>, object: &Value, errors: Vec<FieldError>) -> Status {
    let kind = &write.row.kind;
    Status::invalid((&kind.group, &kind.kind), text(&object["metadata"], "name"), errors)
}

/// Whether the write is of the pod itself or another object of the core group, no subresource.
fn is_core(row: &Row, resource: &str) -> bool {
    row.resource.group.is_empty() && row.resource.resource == resource
}

/// Reads an object of any kind, with the row that describes it.
fn read(
    attributes: &Attributes<'_>,
    group: &str,
    resource: &str,
    namespace: Option<&str>,
    name: &str,
) -> Option<Value> {
    let row = attributes.registry.rows().by_resource(group, resource)?;
    attributes.registry.get(row, namespace, name).map(|object| object.value(row))
}

/// Reads all objects of a kind.
fn read_all(
    attributes: &Attributes<'_>,
    group: &str,
    resource: &str,
    namespace: Option<&str>,
) -> Vec<Value> {
    let Some(row) = attributes.registry.rows().by_resource(group, resource) else {
        return Vec::new();
    };
    let objects: Vec<Object> = attributes.registry.list(row, namespace);
    objects.iter().map(|object| object.value(row)).collect()
}

/// A field that is an object, made one if it is missing.
fn child<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let slot = &mut value[name];
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot
}

/// A field that is a list, made one if it is missing.
fn list<'a>(value: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    let slot = child(value, name);
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    match slot {
        Value::Array(items) => items,
        _ => unreachable!("just made a list"),
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn each<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

/// Nothing to object to.
fn fine<'a>() -> Admitted<'a> {
    Box::pin(std::future::ready(Ok(())))
}

/// The outcome of a decision that needed no waiting.
fn decided<'a>(outcome: Result<(), Status>) -> Admitted<'a> {
    Box::pin(std::future::ready(outcome))
}

/// Whether a pod itself is written, and not one of its subresources.
fn is_pod(row: &Row, subresource: Option<&str>) -> bool {
    is_core(row, "pods") && subresource.is_none()
}

/// A failure in a plugin's own words, without a reason.
fn failed(message: impl Into<String>) -> Status {
    Status::new(500, "", message)
}
