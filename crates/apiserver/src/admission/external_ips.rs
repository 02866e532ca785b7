//! DenyServiceExternalIPs: nobody takes further external addresses for a Service.

use registry::{Admit, Attributes, Operation, Row};
use serde_json::Value;

use super::{Admitted, decided, each, fine, forbid, is_core};

/// The plugin.
pub(super) struct DenyServiceExternalIPs;

impl Admit for DenyServiceExternalIPs {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && is_core(row, "services")
            && subresource.is_none()
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> Admitted<'a> {
        let Some(service) = object else { return fine() };
        let had = |address: &Value| {
            attributes
                .old
                .is_some_and(|old| each(&old["spec"], "externalIPs").any(|one| one == address))
        };
        if each(&service["spec"], "externalIPs").all(had) {
            return fine();
        }
        let why = "Use of external IPs is denied by admission control";
        decided(Err(forbid(attributes, Some(service), why)))
    }
}
