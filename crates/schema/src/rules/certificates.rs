//! Rules of certificate requests.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meta::{FieldError, names};
use serde_json::Value;

use super::at::{At, Errors};
use super::pem::blocks;
use super::{Hooks, metadata};
use crate::view::{View, same};

/// `certificates.k8s.io/v1 CertificateSigningRequest`.
pub(super) const REQUEST: Hooks = Hooks {
    // Kubelets derive names from hashes.
    name: metadata::path_segment,
    validate: |request, errors| self::request(request, Kept::default(), errors),
    validate_update: |new, old, errors| update(new, old, By::Anybody, errors),
    validate_status: |new, old, errors| update(new, old, By::Signer, errors),
    ..Hooks::BASE
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
const LONGEST_DOMAIN: usize = 253;
/// The longest signer name: a domain, a slash and a path.
const LONGEST_SIGNER: usize = 571;
const LEGACY: &str = "kubernetes.io/legacy-unknown";
/// Conditions that are never taken back.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

/// Who writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Anybody,
    /// Through the status: the certificate comes from there.
    Signer,
    /// Through the approval: decisions come from there.
    Approver,
}

/// Checks a decision.
pub(super) fn validate_approval(new: &Value, old: &Value, errors: &mut Errors) {
    update(new, old, By::Approver, errors);
}

/// What a request had before it was refused, and may keep.
#[derive(Clone, Copy, Default)]
struct Kept {
    both_decisions: bool,
    legacy_signer: bool,
    repeated_conditions: bool,
    nameless_conditions: bool,
    certificate: bool,
    unknown_usages: bool,
    repeated_usages: bool,
}

impl Kept {
    fn of(new: &Value, old: &Value) -> Self {
        let (status, spec) = (old.at("status"), old.at("spec"));
        let mut types = BTreeSet::new();
        let mut repeated = |text: &'_ str| !types.insert(text.to_owned());
        let kinds = || status.items("conditions").iter().map(|at| at.text("type"));
        let usages = || spec.items("usages").iter().map(|usage| usage.as_str().unwrap_or_default());
        let certificate = |request: &Value| request.at("status").text("certificate").to_owned();
        let (then, now) = (certificate(old), certificate(new));
        Self {
            both_decisions: DECISIONS.iter().all(|kind| kinds().any(|known| known == *kind)),
            legacy_signer: spec.text("signerName") == LEGACY,
            repeated_conditions: kinds().any(&mut repeated),
            nameless_conditions: kinds().any(str::is_empty),
            certificate: then == now || wrong_certificate(&then).is_some(),
            unknown_usages: usages().any(|usage| !USAGES.contains(&usage)),
            repeated_usages: usages().collect::<BTreeSet<_>>().len() != usages().count(),
        }
    }
}

fn request(request: &Value, kept: Kept, errors: &mut Errors) {
    let (spec, status) = (At::root(request).field("spec"), At::root(request).field("status"));
    let asked = spec.field("request");
    let text = STANDARD.decode(asked.str()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    if blocks(&text).next().is_none_or(|block| block.kind != "CERTIFICATE REQUEST") {
        asked.invalid("PEM block type must be CERTIFICATE REQUEST", errors);
    }
    if spec.items("usages").is_empty() {
        spec.field("usages").required("", errors);
    }
    for usage in spec.each("usages").filter(|_| !kept.unknown_usages) {
        usage.known(&USAGES, errors);
    }
    let mut seen = BTreeSet::new();
    for usage in spec.each("usages").filter(|_| !kept.repeated_usages) {
        if !seen.insert(usage.str()) {
            usage.duplicate(errors);
        }
    }
    let signer = spec.field("signerName");
    if signer.str() == LEGACY && !kept.legacy_signer {
        signer.invalid("the legacy signerName is not allowed via this API version", errors);
    } else {
        signer_name(&signer, errors);
    }
    let seconds = spec.field("expirationSeconds");
    if !seconds.value.is_null() && seconds.number() < SHORTEST {
        seconds.invalid("may not specify a duration less than 600 seconds (10 minutes)", errors);
    }
    conditions(&status, kept, errors);
    if !kept.certificate
        && let Some(problem) = wrong_certificate(status.str_of("certificate"))
    {
        let path = status.path.child("certificate");
        errors.push(FieldError::invalid(path, "<certificate data>", problem));
    }
}

/// Checks the name of a signer: a domain, a slash and a path.
pub(super) fn signer_name(at: &At<'_>, errors: &mut Errors) {
    let (domain, path) = match at.str().split_once('/') {
        _ if at.str().is_empty() => return at.required("", errors),
        Some((domain, path)) if !path.contains('/') => (domain, path),
        _ => {
            let text =
                "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            return at.invalid(text, errors);
        }
    };
    if domain.len() > LONGEST_DOMAIN {
        errors.push(FieldError::too_long(&at.path, LONGEST_DOMAIN));
    }
    first_wrong_label(at, domain, names::is_dns1123_label, errors);
    if !domain.contains('.') {
        let text = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(&at.path, domain, text));
    }
    first_wrong_label(at, path, names::is_dns1123_subdomain, errors);
    at.no_longer(LONGEST_SIGNER, errors);
}

fn first_wrong_label(at: &At<'_>, text: &str, check: fn(&str) -> Vec<String>, errors: &mut Errors) {
    let wrong = |label: &&str| !check(label).is_empty();
    let Some(label) = text.split('.').find(wrong) else { return };
    for problem in check(label) {
        let problem = format!("validating label {label:?}: {problem}");
        errors.push(FieldError::invalid(&at.path, text, problem));
    }
}

/// What is wrong with an issued certificate, which is base64 of PEM.
fn wrong_certificate(text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    let bytes = STANDARD.decode(text).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut any = false;
    for block in blocks(&text) {
        any = true;
        if block.kind != "CERTIFICATE" {
            return Some(format!(
                "only CERTIFICATE PEM blocks are allowed, found {:?}",
                block.kind
            ));
        }
        if block.has_headers {
            return Some("no PEM block headers are permitted".to_owned());
        }
        if !is_sequence(&block.bytes) {
            return Some("x509: malformed certificate".to_owned());
        }
    }
    (!any).then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

/// Whether bytes are one ASN.1 sequence, which every certificate is.
fn is_sequence(bytes: &[u8]) -> bool {
    let (length, content) = match bytes {
        [0x30, short @ 0..=0x7f, content @ ..] => (usize::from(*short), content),
        [0x30, long @ 0x81..=0x84, rest @ ..] if rest.len() >= usize::from(long & 0xf) => {
            let (length, content) = rest.split_at(usize::from(long & 0xf));
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), content)
        }
        _ => return false,
    };
    length == content.len()
}

fn conditions(status: &At<'_>, kept: Kept, errors: &mut Errors) {
    let (mut seen, list) = (BTreeSet::new(), status.path.child("conditions"));
    for condition in status.each("conditions") {
        let (kind, state) = (condition.field("type"), condition.field("status"));
        if kind.str().is_empty() && !kept.nameless_conditions {
            kind.required("", errors);
        }
        let allowed: &[&str] =
            if FINAL.contains(&kind.str()) { &["True"] } else { &["False", "True", "Unknown"] };
        state.one_of(allowed, errors);
        let other = match kind.str() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !kept.both_decisions && seen.contains(other) && !other.is_empty() {
            let text = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid(&list, kind.str(), text));
        }
        if !seen.insert(kind.str()) && !kept.repeated_conditions {
            errors.push(FieldError::duplicate(&kind.path, kind.str()));
        }
    }
}

fn update(new: &Value, old: &Value, by: By, errors: &mut Errors) {
    request(new, Kept::of(new, old), errors);
    let path = At::root(new).field("status").path;
    let of = |request: &Value, kind: &str| -> Vec<Value> {
        let list = request.at("status").items("conditions");
        list.iter().filter(|condition| condition.text("type") == kind).cloned().collect()
    };
    let mut forbid = |field: &str, text: String| {
        errors.push(FieldError::forbidden(path.child(field), text));
    };
    for kind in FINAL {
        if of(new, kind).len() < of(old, kind).len() {
            forbid("conditions", format!("updates may not remove a condition of type {kind:?}"));
        }
    }
    for kind in DECISIONS.into_iter().filter(|_| by != By::Approver) {
        let (now, then) = (of(new, kind), of(old, kind));
        if now.len() > then.len() {
            forbid("conditions", format!("updates may not add a condition of type {kind:?}"));
        } else if now.len() == then.len() && !same(&now.into(), &then.into()) {
            forbid("conditions", format!("updates may not modify a condition of type {kind:?}"));
        }
    }
    let certificate = |request: &Value| request.at("status").text("certificate").to_owned();
    let (now, then) = (certificate(new), certificate(old));
    if now != then && by != By::Signer {
        forbid("certificate", "updates may not set certificate content".to_owned());
    } else if now != then && !then.is_empty() {
        forbid("certificate", "updates may not modify existing certificate content".to_owned());
    }
}
