//! Certificate signing requests: `approve` grants those of nodes, `sign` signs what was approved,
//! `clean` removes what is done with. `rules` says what each signer demands.
//!
//! Upstream's signers and conditions; skiff's own is the second identity of a node, and that a
//! bootstrap token gives nobody the identity of a node that exists.

pub(crate) mod approve;
pub(crate) mod clean;
mod rules;
pub(crate) mod sign;

use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition as Condition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pki::SigningRequest;
use serde_json::{Value, json};

pub use sign::Signer;

/// A condition's type.
const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";

fn condition<'a>(request: &'a CertificateSigningRequest, kind: &str) -> Option<&'a Condition> {
    let conditions = request.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn is_signed(request: &CertificateSigningRequest) -> bool {
    let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    certificate.is_some_and(|certificate| !certificate.0.is_empty())
}

/// The request's conditions with one more, as a patch of the status.
fn with_condition(
    request: &CertificateSigningRequest,
    kind: &str,
    reason: &str,
    message: &str,
    now: jiff::Timestamp,
) -> Value {
    let status = request.status.clone().unwrap_or_default();
    let mut conditions = status.conditions.unwrap_or_default();
    conditions.push(Condition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
    json!({"status": {"conditions": conditions}})
}

/// What is asked to be signed.
fn read(request: &CertificateSigningRequest) -> Result<SigningRequest, pki::PkiError> {
    SigningRequest::from_pem(&request.spec.request.0)
}
