//! Warns of TLS Secrets whose key does not fit their certificate.
//!
//! Kubernetes does this in the storage of Secrets; it is a plugin here so that the engine need not know
//! certificates.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use registry::{Admit, Attributes, Operation, Row};
use serde_json::Value;

use super::{Admitted, fine, is_core, text};

/// The plugin.
pub(super) struct TlsSecrets;

impl Admit for TlsSecrets {
    fn name(&self) -> &'static str {
        "TLSSecrets"
    }

    fn handles(&self, operation: Operation, row: &Row, _: Option<&str>) -> bool {
        matches!(operation, Operation::Create | Operation::Update) && is_core(row, "secrets")
    }

    fn validate<'a>(
        &'a self,
        write: &'a Attributes<'a>,
        secret: Option<&'a Value>,
    ) -> Admitted<'a> {
        if let Some(secret) = secret.filter(|secret| text(secret, "type") == "kubernetes.io/tls") {
            let [certificate, key] = ["tls.crt", "tls.key"].map(|name| {
                BASE64_STANDARD.decode(text(&secret["data"], name)).unwrap_or_default()
            });
            if let Some(problem) = pki::pair_problem(&certificate, &key) {
                write.warn(problem);
            }
        }
        fine()
    }
}
