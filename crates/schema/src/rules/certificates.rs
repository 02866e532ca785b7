//! Rules of certificate requests, beyond what the type graph says.

use meta::{FieldError, names};
use serde_json::Value;

use super::Hooks;
use super::at::{At, Errors};
use super::metadata;
use crate::view::View;

/// `certificates.k8s.io/v1 CertificateSigningRequest`.
pub(super) const REQUEST: Hooks = Hooks {
    // Kubelets derive names from hashes.
    name: metadata::path_segment,
    prepare_create: |_| {},
    validate,
    validate_update: |new, old, errors| decisions(new, old, errors),
    validate_status: |new, old, errors| decisions(new, old, errors),
};

/// What a certificate may be for.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// The shortest life that may be asked for, in seconds.
const SHORTEST: i64 = 600;
/// The longest signer name: a domain, a slash and a path.
const LONGEST_SIGNER: usize = 571;

fn validate(request: &Value, errors: &mut Errors) {
    let spec = At::root(request).field("spec");
    if spec.str_of("request").is_empty() {
        errors.push(FieldError::required(spec.path.child("request"), ""));
    }
    let mut seen: Vec<&str> = Vec::new();
    for usage in spec.each("usages") {
        if !USAGES.contains(&usage.str()) {
            errors.push(FieldError::not_supported(&usage.path, usage.value.clone(), &USAGES));
        } else if seen.contains(&usage.str()) {
            errors.push(FieldError::duplicate(&usage.path, usage.value.clone()));
        }
        seen.push(usage.str());
    }
    if seen.is_empty() {
        errors.push(FieldError::required(spec.path.child("usages"), ""));
    }
    signer(&spec.field("signerName"), errors);
    let seconds = spec.field("expirationSeconds");
    if seconds.value.as_i64().is_some_and(|seconds| seconds < SHORTEST) {
        let text = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid(&seconds.path, seconds.value.clone(), text));
    }
}

fn signer(name: &At<'_>, errors: &mut Errors) {
    let text = name.str();
    if text.is_empty() {
        errors.push(FieldError::required(&name.path, ""));
        return;
    }
    let problem = match text.split_once('/') {
        _ if text.len() > LONGEST_SIGNER => {
            Some(format!("must be no more than {LONGEST_SIGNER} bytes"))
        }
        Some((domain, path)) if !path.is_empty() && !path.contains('/') => {
            let labels = path.split('.').flat_map(names::is_dns1123_label);
            names::is_dns1123_subdomain(domain).into_iter().chain(labels).next()
        }
        _ => Some(
            "must be a fully qualified domain and path of the form 'example.com/signer-name'"
                .to_owned(),
        ),
    };
    if let Some(problem) = problem {
        errors.push(FieldError::invalid(&name.path, text, problem));
    }
}

/// A decision stands, and there is only one.
fn decisions(new: &Value, old: &Value, errors: &mut Errors) {
    let has = |request: &Value, kind: &str| {
        let conditions = request.at("status").at("conditions").as_array();
        conditions.into_iter().flatten().any(|condition| condition.text("type") == kind)
    };
    for kind in ["Approved", "Denied", "Failed"] {
        if has(old, kind) && !has(new, kind) {
            let text = format!("updates may not remove a condition of type {kind:?}");
            errors.push(FieldError::forbidden("status.conditions", text));
        }
    }
    if has(new, "Approved") && has(new, "Denied") {
        let text = "Approved and Denied conditions are mutually exclusive";
        errors.push(FieldError::invalid("status.conditions", "Denied", text));
    }
    let certificate = |request: &Value| request.at("status").text("certificate").to_owned();
    if !certificate(old).is_empty() && certificate(new) != certificate(old) {
        let text = "certificate is immutable once set";
        errors.push(FieldError::forbidden("status.certificate", text));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(change: impl FnOnce(&mut Value)) -> String {
        let mut request = json!({"spec": {"request": "LS0t", "signerName": "example.com/signer", "usages": ["client auth"]}});
        change(&mut request["spec"]);
        let mut errors = Errors::new();
        validate(&request, &mut errors);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn requests_say_what_they_want_and_of_whom() {
        assert_eq!(check(|_| ()), "");
        assert!(check(|spec| spec["usages"] = json!([])).contains("spec.usages: Required value"));
        assert!(check(|spec| spec["usages"] = json!(["fun"])).contains("Unsupported value"));
        assert!(check(|spec| spec["usages"] = json!(["any", "any"])).contains("Duplicate value"));
        assert!(check(|spec| spec["signerName"] = json!("signer")).contains("fully qualified"));
        assert!(check(|spec| spec["expirationSeconds"] = json!(599)).contains("600 seconds"));
    }

    #[test]
    fn decisions_stand() {
        let with = |kinds: &[&str]| {
            let conditions: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
            json!({"status": {"conditions": conditions}})
        };
        let check = |new: &[&str], old: &[&str]| {
            let mut errors = Errors::new();
            decisions(&with(new), &with(old), &mut errors);
            errors.len()
        };
        assert_eq!(check(&["Approved"], &[]), 0);
        assert_eq!(check(&["Approved", "Denied"], &["Approved"]), 1);
        assert_eq!(check(&[], &["Denied"]), 1);
    }
}
