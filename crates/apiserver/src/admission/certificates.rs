//! Who may decide about certificate requests: approving and signing are rights on the signer that a request
//! names, and nobody gets a client certificate of `system:masters`.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use meta::{FieldError, Status};
use pki::SigningRequest;
use registry::{Admit, Attributes as Write, Operation, Row};
use serde_json::Value;

use super::{Admitted, decided, escalation::collected, fine, forbid, text};
use crate::{
    authz::{Attributes, Authorizer},
    identity::MASTERS,
};

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

fn is_request(row: &Row) -> bool {
    row.resource.group == GROUP && row.resource.resource == RESOURCE
}

/// CertificateApproval and CertificateSigning: a verb on the signer, demanded of who changes a part of requests.
pub(super) struct SignerRight {
    authorizer: Arc<Authorizer>,
    name: &'static str,
    subresource: &'static str,
    verb: &'static str,
}

impl SignerRight {
    pub(super) fn approval(authorizer: Arc<Authorizer>) -> Self {
        let (name, subresource, verb) = ("CertificateApproval", "approval", "approve");
        Self { authorizer, name, subresource, verb }
    }

    pub(super) fn signing(authorizer: Arc<Authorizer>) -> Self {
        Self { authorizer, name: "CertificateSigning", subresource: "status", verb: "sign" }
    }
}

/// Whether the writer has a right on the signer itself, or on all signers of its domain.
async fn holds(authorizer: &Authorizer, verb: &str, write: &Write<'_>, signer: &str) -> bool {
    let domain = signer.split_once('/').map(|(domain, _)| format!("{domain}/*"));
    for name in [Some(signer), domain.as_deref()].into_iter().flatten() {
        let asked = Attributes {
            verb,
            resource_request: true,
            group: GROUP,
            version: "*",
            resource: "signers",
            name,
            ..Attributes::default()
        };
        if authorizer.permits(write.user, &asked).await {
            return true;
        }
    }
    false
}

impl Admit for SignerRight {
    fn name(&self) -> &'static str {
        self.name
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        operation == Operation::Update && is_request(row) && subresource == Some(self.subresource)
    }

    fn validate<'a>(&'a self, write: &'a Write<'a>, object: Option<&'a Value>) -> Admitted<'a> {
        let (Some(object), Some(old)) = (object, write.old) else { return fine() };
        let same = |field: &str| object["status"][field] == old["status"][field];
        if self.subresource == "status" && same("certificate") && same("conditions") {
            return fine();
        }
        let signer = text(&old["spec"], "signerName");
        Box::pin(async move {
            if holds(&self.authorizer, self.verb, write, signer).await {
                return Ok(());
            }
            let why =
                format!("user not permitted to {} requests with signerName {signer:?}", self.verb);
            Err(forbid(write, Some(object), why))
        })
    }
}

/// ClusterTrustBundleAttest: who publishes trust in a signer's certificates has a right on the signer.
pub(super) struct ClusterTrustBundleAttest(pub(super) Arc<Authorizer>);

impl Admit for ClusterTrustBundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    fn handles(&self, operation: Operation, row: &Row, _: Option<&str>) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && row.resource.group == GROUP
            && row.resource.resource == "clustertrustbundles"
    }

    fn validate<'a>(&'a self, write: &'a Write<'a>, object: Option<&'a Value>) -> Admitted<'a> {
        let Some(bundle) = object else { return fine() };
        let signer = text(&bundle["spec"], "signerName");
        let same = write.old.is_some_and(|old| collected(old) == collected(bundle));
        if signer.is_empty() || same {
            return fine();
        }
        Box::pin(async move {
            if holds(&self.0, "attest", write, signer).await {
                return Ok(());
            }
            let why = format!("user not permitted to attest for signerName {signer:?}");
            Err(forbid(write, Some(bundle), why))
        })
    }
}

/// CertificateSubjectRestriction; and what is no request at all, or not of the one who holds its key, is refused.
pub(super) struct SubjectRestriction;

impl Admit for SubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        operation == Operation::Create && is_request(row) && subresource.is_none()
    }

    fn validate<'a>(&'a self, write: &'a Write<'a>, object: Option<&'a Value>) -> Admitted<'a> {
        let Some(object) = object else { return fine() };
        let asked = BASE64_STANDARD
            .decode(text(&object["spec"], "request"))
            .map_err(|error| error.to_string())
            .and_then(|bytes| SigningRequest::from_pem(&bytes).map_err(|error| error.to_string()));
        let asked = match asked {
            Ok(asked) => asked,
            Err(why) => return decided(Err(unreadable(object, why))),
        };
        let client = text(&object["spec"], "signerName") == CLIENT;
        if !client || !asked.subject.organizations.iter().any(|group| group == MASTERS) {
            return fine();
        }
        let why = format!("use of {CLIENT} signer with {MASTERS} group is not allowed");
        decided(Err(forbid(write, Some(object), why)))
    }
}

fn unreadable(object: &Value, why: String) -> Status {
    let request = &object["spec"]["request"];
    let error = FieldError::invalid("spec.request", request.clone(), why);
    let name = text(&object["metadata"], "name");
    Status::invalid((GROUP, "CertificateSigningRequest"), name, vec![error])
}
