//! Signs approved requests to Kubernetes' own signers with the cluster's authority.

use std::{fmt, sync::Arc, time::Duration};

use client::{Cache, Caches, ObjectKey};
use k8s_openapi::{ByteString, api::certificates::v1::CertificateSigningRequest};
use pki::Authority;
use reconcile::{Action, Context, Controller, Deps, Plan, Runtime, itself};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::rules::{self, CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY};
use super::{APPROVED, DENIED, FAILED, condition, is_signed, read, with_condition};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "certificatesigningrequest-signing-controller";

/// The signers served here.
const SIGNERS: [&str; 4] = [CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY];
/// The shortest life that can be asked for.
const SHORTEST: Duration = Duration::from_secs(600);

/// What requests are signed with.
#[derive(Clone)]
pub struct Signer {
    /// The cluster's authority.
    pub authority: Arc<Authority>,
    /// How long certificates live unless they ask for less.
    pub lifetime: Duration,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({:?})", self.lifetime)
    }
}

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, signer: Signer, shutdown: CancellationToken) {
    let requests = caches.cache::<CertificateSigningRequest>();
    Runtime::new(NAME, deps)
        .watch(&requests, itself)
        .run(Requests { requests, signer }, shutdown)
        .await;
}

struct Requests {
    requests: Cache<CertificateSigningRequest>,
    signer: Signer,
}

impl Controller for Requests {
    type Snapshot = Arc<CertificateSigningRequest>;

    fn observe(&self, key: &ObjectKey) -> Option<Self::Snapshot> {
        self.requests.get_key(key)
    }

    fn plan(&self, request: &Self::Snapshot, context: &Context) -> Plan {
        let mut plan = Plan::nothing();
        let undecided = condition(request, APPROVED).is_none()
            || condition(request, DENIED).is_some()
            || condition(request, FAILED).is_some();
        if undecided || is_signed(request) || !SIGNERS.contains(&request.spec.signer_name.as_str())
        {
            return plan;
        }
        let patch = match sign(request, &self.signer) {
            Ok(certificate) => {
                json!({"status": {"certificate": ByteString(certificate.into_bytes())}})
            }
            Err(why) => {
                with_condition(request, FAILED, "SignerValidationFailure", &why, context.now)
            }
        };
        plan.act(Action::patch_with(&**request, Some("status"), patch, true));
        plan
    }
}

fn sign(request: &CertificateSigningRequest, signer: &Signer) -> Result<String, String> {
    let asked = read(request).map_err(|error| error.to_string())?;
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    rules::check(&request.spec.signer_name, &asked, usages)?;
    let wanted = request.spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let lifetime = wanted.map_or(signer.lifetime, |seconds| {
        Duration::from_secs(seconds).max(SHORTEST).min(signer.lifetime)
    });
    signer.authority.sign(&asked, usages, lifetime).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
    use pki::{NewKey, Profile};

    use super::*;
    use crate::testing::told;

    fn request(approved: bool, usages: &[&str]) -> CertificateSigningRequest {
        let profile = Profile::client("system:node:b", Some("system:nodes"));
        let text = NewKey::generate().unwrap().request(&profile).unwrap();
        let mut request = CertificateSigningRequest {
            spec: CertificateSigningRequestSpec {
                signer_name: KUBELET_CLIENT.into(),
                usages: Some(usages.iter().map(ToString::to_string).collect()),
                request: ByteString(text.into_bytes()),
                ..CertificateSigningRequestSpec::default()
            },
            ..CertificateSigningRequest::default()
        };
        if approved {
            let now = jiff::Timestamp::now();
            let status = with_condition(&request, APPROVED, "AutoApproved", "", now);
            request.status = serde_json::from_value(status["status"].clone()).unwrap();
        }
        request
    }

    #[test]
    fn only_what_is_approved_and_right_is_signed() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::load_or_create(directory.path(), "ca").unwrap());
        let signer = Signer { authority, lifetime: Duration::from_secs(3600) };
        let controller = Requests { requests: Cache::fixed(Vec::new()), signer };
        let plan = |request| {
            let context = Context::at(jiff::Timestamp::now());
            told(&controller.plan(&Arc::new(request), &context)).join("\n")
        };
        let good = ["client auth", "digital signature"];
        assert_eq!(plan(request(false, &good)), "");
        assert!(plan(request(true, &good)).contains("\"certificate\":"));
        let failed = plan(request(true, &["client auth", "cert sign"]));
        assert!(failed.contains("SignerValidationFailure"), "{failed}");
        let foreign = CertificateSigningRequest {
            spec: CertificateSigningRequestSpec {
                signer_name: "example.com/signer".into(),
                ..request(true, &good).spec
            },
            ..request(true, &good)
        };
        assert_eq!(plan(foreign), "");
    }
}
