//! Descriptions of types and fields, taken from the JSON schemas that `k8s-openapi` can generate.
//!
//! Packed in the order of the type table, each ended by a zero byte, and deflated: a type's own description,
//! then those of its fields.

use std::io::Write as _;

use k8s_openapi::schemars::SchemaGenerator;
use k8s_openapi::schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::Type;

/// Registers every kind, and with it what it refers to.
macro_rules! kinds {
    ($generator:ident, $($module:path => $($kind:ident),+;)+) => {
        $({
            use $module as module;
            $($generator.subschema_for::<module::$kind>();)+
        })+
    };
}

/// The packed descriptions of `types`; empty where `k8s-openapi` has none.
pub(crate) fn pack(types: &[Type]) -> Vec<u8> {
    let schemas = schemas();
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for one in types {
        let schema = &schemas[one.name.as_str()];
        let own = schema["description"].as_str().unwrap_or_default();
        let fields = one.fields.iter().map(|(name, ..)| {
            let text = schema["properties"][name.as_str()]["description"].as_str();
            text.filter(|text| !text.is_empty()).unwrap_or_else(|| ours(&one.name, name))
        });
        for text in std::iter::once(own).chain(fields) {
            packer.write_all(text.replace('\0', "").as_bytes()).unwrap();
            packer.write_all(&[0]).unwrap();
        }
    }
    packer.finish().unwrap()
}

/// Fields of types that `k8s-openapi` has no schema of, in our own words: lists, and what is no object.
const OURS: &str = include_str!("descriptions.tsv");

/// Our own words about a field, if there are any.
fn ours(of: &str, field: &str) -> &'static str {
    let short = of.rsplit('.').next().unwrap_or_default();
    let row = format!("{short}\t{field}\t");
    match (OURS.lines().find_map(|line| line.strip_prefix(row.as_str())), field) {
        (Some(text), _) => text,
        (None, "items") if short.ends_with("List") => "the objects of the list",
        (None, "metadata") if short.ends_with("List") => {
            "metadata of the list: its revision and the way to the next page"
        }
        (None, "apiVersion") if short.ends_with("List") => "group and version of the list's form",
        (None, "kind") if short.ends_with("List") => "the kind of the list",
        _ => "",
    }
}

/// The schemas of every type that is reachable from a kind, by name.
fn schemas() -> Value {
    let mut generator: SchemaGenerator = SchemaSettings::draft07().into_generator();
    core(&mut generator);
    groups(&mut generator);
    Value::Object(generator.take_definitions(false))
}

fn core(generator: &mut SchemaGenerator) {
    kinds! { generator,
        k8s_openapi::api::core::v1 => Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret, Service, ServiceAccount;
        k8s_openapi::apimachinery::pkg::apis::meta::v1 => APIGroup, APIGroupList, APIResourceList, APIVersions, DeleteOptions, Patch, Status;
    }
}

fn groups(generator: &mut SchemaGenerator) {
    kinds! { generator,
    k8s_openapi::api::admissionregistration::v1 => MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration;
    k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 => CustomResourceDefinition;
    k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 => APIService;
    k8s_openapi::api::apps::v1 => ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet;
    k8s_openapi::api::authentication::v1 => SelfSubjectReview, TokenRequest, TokenReview;
    k8s_openapi::api::authorization::v1 => LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview;
    k8s_openapi::api::autoscaling::v1 => HorizontalPodAutoscaler, Scale;
    k8s_openapi::api::autoscaling::v2 => HorizontalPodAutoscaler;
    k8s_openapi::api::batch::v1 => CronJob, Job;
    k8s_openapi::api::certificates::v1 => CertificateSigningRequest;
    k8s_openapi::api::coordination::v1 => Lease;
    k8s_openapi::api::discovery::v1 => EndpointSlice;
    k8s_openapi::api::events::v1 => Event;
    k8s_openapi::api::flowcontrol::v1 => FlowSchema, PriorityLevelConfiguration;
    k8s_openapi::api::networking::v1 => IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR;
    k8s_openapi::api::node::v1 => RuntimeClass;
    k8s_openapi::api::policy::v1 => Eviction, PodDisruptionBudget;
    k8s_openapi::api::rbac::v1 => ClusterRole, ClusterRoleBinding, Role, RoleBinding;
    k8s_openapi::api::resource::v1 => DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice;
    k8s_openapi::api::scheduling::v1 => PriorityClass;
    k8s_openapi::api::storage::v1 => CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass;    }
}
