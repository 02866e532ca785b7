//! Binds a pod by its `binding` subresource, and only the pod that was looked at.

use k8s_openapi::api::core::v1::{Binding, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::plugin::Bind;
use crate::pod::PodInfo;

pub(super) struct DefaultBinder;

impl Bind for DefaultBinder {
    fn binding(&self, pod: &PodInfo, node: &str) -> Binding {
        Binding {
            metadata: ObjectMeta {
                namespace: Some(pod.key.namespace().to_owned()),
                name: Some(pod.key.name().to_owned()),
                uid: Some(pod.uid.to_string()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        }
    }
}
