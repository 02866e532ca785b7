//! Rules of APIServices.

use meta::{FieldError, names};
use serde_json::Value;

use super::admission::service_port;
use super::at::{At, Errors};
use super::{Hooks, metadata};

/// `apiregistration.k8s.io/v1 APIService`.
pub(super) const API_SERVICE: Hooks = Hooks {
    name: metadata::path_segment,
    validate: api_service,
    validate_update: |new, _, errors| api_service(new, errors),
    validate_status: |new, _, errors| {
        for condition in At::root(new).field("status").each("conditions") {
            let status = condition.field("status");
            if !matches!(status.str(), "True" | "False" | "Unknown") {
                status.unsupported(&["True", "False", "Unknown"], errors);
            }
        }
    },
    ..Hooks::BASE
};

fn api_service(service: &Value, errors: &mut Errors) {
    let root = At::root(service);
    let (name, spec) = (root.field("metadata").field("name"), root.field("spec"));
    let (group, version) = (spec.field("group"), spec.field("version"));
    let wanted = format!("{}.{}", version.str(), group.str());
    if name.str() != wanted && names::is_path_segment(name.str()).is_empty() {
        let text = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        name.invalid_text(text, errors);
    }
    if group.str().is_empty() && version.str() != "v1" {
        let text = "only v1 may have an empty group and it better be legacy kube";
        group.required(text, errors);
    }
    group.optional(names::is_dns1123_subdomain, errors);
    version.check(names::is_dns1035_label, errors);
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = spec.field(field);
        if !(1..=most).contains(&priority.number()) {
            let text = format!("must be positive and less than {most}");
            errors.push(FieldError::invalid(&priority.path, priority.number(), text));
        }
    }
    let (bundle, insecure) = (spec.field("caBundle"), spec.field("insecureSkipTLSVerify"));
    let trusts_all = insecure.value.as_bool().unwrap_or_default();
    let Some(backend) = spec.some("service") else {
        if !bundle.str().is_empty() {
            let bytes = bundle.str().trim_end_matches('=').len() * 3 / 4;
            let text = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid(&bundle.path, format!("{bytes} bytes"), text));
        }
        if trusts_all {
            insecure.invalid("local APIServices may not have insecureSkipTLSVerify", errors);
        }
        return;
    };
    for field in ["namespace", "name"] {
        if backend.str_of(field).is_empty() {
            backend.field(field).required("", errors);
        }
    }
    service_port(&backend.field("port"), errors);
    if trusts_all && !bundle.str().is_empty() {
        insecure.invalid("may not be true if caBundle is present", errors);
    }
}
