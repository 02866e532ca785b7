//! PodTolerationRestriction: which tolerations the pods of a namespace get, and which they may have at most.

use meta::{GroupResource, Status};
use registry::{Admit, Attributes, Operation, Row};
use schema::{amounts::qos_of, view::View};
use serde_json::{Value, json};

use super::{merge, tolerated};
use crate::admission::{Admitted, decided, failed, fine, is_pod, read};

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

/// The plugin.
pub(in crate::admission) struct PodTolerationRestriction {
    defaults: Vec<Value>,
    allowed: Vec<Value>,
}

impl PodTolerationRestriction {
    /// With its `Configuration`, or nothing.
    pub(in crate::admission) fn configured(configuration: &Value) -> Self {
        let list = |field: &str| configuration.items(field).to_vec();
        Self { defaults: list("default"), allowed: list("whitelist") }
    }
}

impl Admit for PodTolerationRestriction {
    fn name(&self) -> &'static str {
        "PodTolerationRestriction"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        matches!(operation, Operation::Create | Operation::Update) && is_pod(row, subresource)
    }

    fn mutate<'a>(&'a self, attributes: &'a Attributes<'a>, pod: &'a mut Value) -> Admitted<'a> {
        decided(self.add(attributes, pod))
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> Admitted<'a> {
        object.map_or_else(fine, |pod| decided(self.check(attributes, pod)))
    }
}

impl PodTolerationRestriction {
    fn add(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        let mut more = Vec::new();
        if attributes.operation == Operation::Create {
            more = said(attributes, DEFAULTS)?.unwrap_or_else(|| self.defaults.clone());
        }
        if qos_of(pod) != "BestEffort" {
            let pressure = "node.kubernetes.io/memory-pressure";
            more.push(json!({"key": pressure, "operator": "Exists", "effect": "NoSchedule"}));
        }
        if !more.is_empty() {
            pod["spec"]["tolerations"] = merge(pod.at("spec").items("tolerations"), &more).into();
        }
        self.check(attributes, pod)
    }

    fn check(&self, attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
        let own = said(attributes, ALLOWED)?;
        let scope = if own.is_some() { "namespace" } else { "cluster" };
        let allowed = own.as_ref().unwrap_or(&self.allowed);
        if tolerated(pod.at("spec").items("tolerations"), allowed) {
            return Ok(());
        }
        Err(failed(format!(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
        )))
    }
}

/// The list that the namespace says in an annotation.
fn said(attributes: &Attributes<'_>, annotation: &str) -> Result<Option<Vec<Value>>, Status> {
    let name = attributes.namespace.unwrap_or_default();
    let namespace = read(attributes, "", "namespaces", None, name)
        .ok_or_else(|| Status::not_found(&GroupResource::new("", "namespaces"), name))?;
    match namespace["metadata"]["annotations"][annotation].as_str() {
        None => Ok(None),
        Some("") => Ok(Some(Vec::new())),
        Some(text) => {
            serde_json::from_str(text).map(Some).map_err(|error| failed(error.to_string()))
        }
    }
}
