//! NamespaceLifecycle: objects are created only in namespaces that exist and are not going away, and the
//! namespaces the cluster needs are not deleted.

use meta::{Status, StatusCause};
use registry::{Admit, Attributes, Operation, Row};
use serde_json::Value;

use super::{Admitted, decided, forbid, is_core, namespaces};

/// Namespaces that may not be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The plugin.
pub(super) struct NamespaceLifecycle;

impl Admit for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, operation: Operation, row: &Row, _subresource: Option<&str>) -> bool {
        match operation {
            Operation::Create => row.namespaced() && row.kind.group != "authorization.k8s.io",
            Operation::Delete => is_core(row, "namespaces"),
            _ => false,
        }
    }

    fn mutate<'a>(&'a self, attributes: &'a Attributes<'a>, object: &'a mut Value) -> Admitted<'a> {
        decided(check(attributes, Some(object)))
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> Admitted<'a> {
        // Creations were judged before anything else looked at them.
        if attributes.operation == Operation::Create {
            return super::fine();
        }
        decided(check(attributes, object))
    }
}

fn check(attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
    if attributes.operation == Operation::Delete {
        if IMMORTAL.contains(&attributes.name) {
            return Err(forbid(attributes, object, "this namespace may not be deleted"));
        }
        return Ok(());
    }
    let Some(name) = attributes.namespace else { return Ok(()) };
    let namespace = namespaces::of(attributes, name).ok_or_else(|| namespaces::not_found(name))?;
    // Every creation asks this, so the namespace is not parsed: its phase is Terminating exactly
    // when it is being deleted.
    if namespace.header().deleting() {
        let why = format!(
            "unable to create new content in namespace {name} because it is being terminated"
        );
        let cause = StatusCause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {name} is being terminated"),
            field: "metadata.namespace".into(),
        };
        return Err(forbid(attributes, object, why).with_causes(vec![cause]));
    }
    Ok(())
}
