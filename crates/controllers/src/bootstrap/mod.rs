//! Bootstrap tokens: `sign` lets their holders recognise the cluster, `clean` removes them when their
//! time is over.

pub(crate) mod clean;
pub(crate) mod sign;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

/// Where tokens are.
const NAMESPACE: &str = "kube-system";
/// Their type, which is also a field selector.
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// What their names begin with; the id follows.
const PREFIX: &str = "bootstrap-token-";

/// A token's Secret, read.
struct Token {
    id: String,
    secret: String,
    signs: bool,
    /// When it ends; `Err` if that cannot be read, which counts as ended.
    expiration: Option<Result<Timestamp, ()>>,
}

impl Token {
    /// `None` when it is no token, or an unusable one.
    fn of(secret: &Secret) -> Option<Self> {
        let field = |name: &str| {
            let bytes = secret.data.as_ref()?.get(name)?.0.clone();
            String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
        };
        let id = field("token-id")?;
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        if secret.type_.as_deref() != Some(TYPE) || name.strip_prefix(PREFIX) != Some(&id) {
            return None;
        }
        let expiration = field("expiration").map(|text| meta::time::parse(&text).ok_or(()));
        let signs = field("usage-bootstrap-signing").as_deref() == Some("true");
        Some(Self { id, secret: field("token-secret")?, signs, expiration })
    }

    fn has_expired(&self, now: Timestamp) -> bool {
        self.expiration.is_some_and(|end| end.is_err() || end.is_ok_and(|end| end <= now))
    }
}
