//! Deployments: annotations are part of what a rollout observes.

use serde_json::Value;

use super::Strategy;

/// `apps/v1 Deployment`.
#[derive(Debug)]
pub(super) struct Deployment;

impl Strategy for Deployment {
    fn specification_changed(&self, object: &Value, old: &Value) -> bool {
        object["spec"] != old["spec"]
            || object["metadata"]["annotations"] != old["metadata"]["annotations"]
    }
}
