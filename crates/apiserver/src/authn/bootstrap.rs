//! Bootstrap tokens: `<id>.<secret>`, each a Secret in `kube-system`, by which a machine that has no
//! identity yet may ask for one.
//!
//! The rules are upstream's (KEP-130). Refuses to know what such a user may do.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use meta::time;
use registry::UserInfo;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::authz::node::Lookup;
use crate::identity::Identity;

/// The group of every such user, and the prefix of the further groups a token may give.
pub(crate) const GROUP: &str = "system:bootstrappers";
/// What such a user's name starts with; the token's id follows.
const USER_PREFIX: &str = "system:bootstrap:";
const NAMESPACE: &str = "kube-system";
const SECRET_PREFIX: &str = "bootstrap-token-";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// The longest name of a further group, behind the prefix and its colon.
const LONGEST_GROUP: usize = 256;

/// The user of a bootstrap token that is good now.
pub(super) fn verify(lookup: &dyn Lookup, token: &str) -> Option<Arc<UserInfo>> {
    let (id, secret) = pki::bootstrap_token(token)?;
    let object = lookup.object("", "secrets", NAMESPACE, &format!("{SECRET_PREFIX}{id}"))?;
    match user(&object, id, secret, jiff::Timestamp::now()) {
        Ok(user) => Some(Arc::new(user)),
        Err(why) => {
            tracing::info!(token = id, why, "bootstrap token refused");
            None
        }
    }
}

/// The user a Secret stands for, if it is the token's and in force.
fn user(
    secret: &Value,
    id: &str,
    shown: &str,
    now: jiff::Timestamp,
) -> Result<UserInfo, &'static str> {
    if !secret["metadata"]["deletionTimestamp"].is_null() {
        return Err("it is being deleted");
    }
    if secret["type"] != SECRET_TYPE {
        return Err("its Secret is of another type");
    }
    let field = |name: &str| {
        let bytes = BASE64_STANDARD.decode(secret["data"][name].as_str()?).ok()?;
        String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
    };
    // Digests take as long to compare whatever is in them.
    let digest = |text: &str| Sha256::digest(text);
    if field("token-secret").is_none_or(|known| digest(&known) != digest(shown)) {
        return Err("its secret half is wrong");
    }
    if field("token-id").as_deref() != Some(id) {
        return Err("its Secret holds another id");
    }
    if let Some(text) = field("expiration")
        && time::parse(&text).is_none_or(|end| end <= now)
    {
        return Err("it has expired");
    }
    if field("usage-bootstrap-authentication").as_deref() != Some("true") {
        return Err("it is not for authentication");
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in field("auth-extra-groups").iter().flat_map(|list| list.split(',')) {
        if !is_group(group) {
            return Err("one of its groups may not be given by a token");
        }
        if !groups.iter().any(|known| known == group) {
            groups.push(group.to_owned());
        }
    }
    groups.sort();
    let mut user = UserInfo { name: format!("{USER_PREFIX}{id}"), groups, ..UserInfo::default() };
    user.add_authenticated();
    Ok(user)
}

/// Whether a token may give this group.
fn is_group(group: &str) -> bool {
    let rest = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':'));
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    rest.is_some_and(|rest| {
        rest.len() <= LONGEST_GROUP
            && rest.bytes().all(|byte| plain(byte) || matches!(byte, b':' | b'-'))
            && rest.bytes().last().is_some_and(plain)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(change: impl FnOnce(&mut Value)) -> Value {
        let mut fields = json!({
            "token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true", "expiration": "2030-01-01T00:00:00Z",
            "auth-extra-groups": "system:bootstrappers:workers"
        });
        change(&mut fields);
        let data: serde_json::Map<String, Value> = fields
            .as_object()
            .expect("an object")
            .iter()
            .map(|(key, value)| {
                (key.clone(), BASE64_STANDARD.encode(value.as_str().expect("text")).into())
            })
            .collect();
        json!({"type": SECRET_TYPE, "metadata": {"name": "bootstrap-token-abcdef"}, "data": data})
    }

    fn check(secret: &Value, shown: &str) -> Result<UserInfo, &'static str> {
        user(secret, "abcdef", shown, "2029-12-31T00:00:00Z".parse().expect("a time"))
    }

    #[test]
    fn a_good_token_names_its_user_and_groups() {
        let user = check(&secret(|_| ()), "0123456789abcdef").expect("a user");
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, [GROUP, "system:bootstrappers:workers", "system:authenticated"]);
    }

    #[test]
    fn every_other_token_is_refused() {
        let refused = |change: fn(&mut Value)| {
            check(&secret(change), "0123456789abcdef").expect_err("refused")
        };
        assert!(check(&secret(|_| ()), "0123456789abcdee").is_err());
        assert_eq!(refused(|s| s["expiration"] = "2029-12-31T00:00:00Z".into()), "it has expired");
        assert_eq!(refused(|s| s["expiration"] = "soon".into()), "it has expired");
        refused(|s| s["token-id"] = "abcdeg".into());
        refused(|s| s["usage-bootstrap-authentication"] = "yes".into());
        refused(|s| s["auth-extra-groups"] = "system:masters".into());
        refused(|s| s["auth-extra-groups"] = "system:bootstrappers:".into());
        refused(|s| s["token-secret"] = "".into());
        let mut typed = secret(|_| ());
        typed["type"] = "Opaque".into();
        assert!(check(&typed, "0123456789abcdef").is_err());
        let mut going = secret(|_| ());
        going["metadata"]["deletionTimestamp"] = "2029-12-01T00:00:00Z".into();
        assert!(check(&going, "0123456789abcdef").is_err());
    }
}
