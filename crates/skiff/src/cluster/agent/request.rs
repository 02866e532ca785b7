//! Obtaining a certificate by a `CertificateSigningRequest`.
//!
//! A key is written down before it is used, and the request's name derives from it: whoever asks again
//! after a crash finds its own request.

use std::path::Path;

use anyhow::{Context, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec, CertificateSigningRequestStatus,
};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::wait::await_condition;
use pki::{Identity, NewKey};

use super::Wanted;

/// Obtains a certificate and writes it, with its key, to its file in `directory`. Waits as long as it
/// takes for somebody to approve and sign.
pub(super) async fn obtain(
    client: &kube::Client,
    wanted: &Wanted,
    directory: &Path,
) -> anyhow::Result<Identity> {
    let pending = directory.join(format!("{}.new.key", wanted.name));
    let key = match pki::read(&pending)?.as_deref().map(NewKey::from_pem) {
        Some(Ok(key)) => key,
        _ => {
            let key = NewKey::generate()?;
            pki::write_private(&pending, key.to_pem().as_bytes())?;
            key
        }
    };
    let outcome = ask(client, wanted, &key).await;
    let refused = matches!(&outcome, Err(error) if error.is::<Refused>());
    if outcome.is_ok() || refused {
        // A key that was refused would find the refusal again.
        let _ = std::fs::remove_file(&pending);
    }
    let identity = Identity { certificate: outcome?, key: key.to_pem() };
    identity.save(&directory.join(format!("{}.pem", wanted.name)))?;
    Ok(identity)
}

/// What somebody decided against: asking again would not help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub(super) String);

async fn ask(client: &kube::Client, wanted: &Wanted, key: &NewKey) -> anyhow::Result<String> {
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let name = format!("{}-{}", wanted.name, key.name());
    let request = CertificateSigningRequest {
        metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(key.request(&wanted.profile)?.into_bytes()),
            signer_name: wanted.signer.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), wanted.usage.to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    };
    match requests.create(&PostParams::default(), &request).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => return Err(error).context("ask for a certificate"),
        Ok(_) => {}
    }
    let decided =
        await_condition(requests, &name, |request: Option<&CertificateSigningRequest>| {
            request.is_none_or(|request| request.status.as_ref().is_some_and(is_decided))
        });
    let request = decided.await.with_context(|| format!("wait for the certificate {name}"))?;
    let status = request.and_then(|request| request.status).unwrap_or_default();
    let refusal = status
        .conditions
        .iter()
        .flatten()
        .find(|c| matches!(c.type_.as_str(), "Denied" | "Failed"));
    if let Some(refusal) = refusal {
        let why = refusal.message.clone().or(refusal.reason.clone()).unwrap_or_default();
        bail!(Refused(why));
    }
    match status.certificate {
        Some(certificate) => Ok(String::from_utf8(certificate.0).context("read the certificate")?),
        None => bail!("the request {name} was removed before it was signed"),
    }
}

fn is_decided(status: &CertificateSigningRequestStatus) -> bool {
    let refused = |kind: &str| matches!(kind, "Denied" | "Failed");
    status.certificate.as_ref().is_some_and(|certificate| !certificate.0.is_empty())
        || status.conditions.iter().flatten().any(|condition| refused(&condition.type_))
}
