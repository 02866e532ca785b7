//! Acting as somebody else: the `Impersonate-*` headers, and the permissions they need.
//!
//! Refuses to know how the real user authenticated.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, HeaderValue};
use meta::Status;
use registry::UserInfo;

use crate::{
    authz::{Attributes, Authorizer},
    identity::{self, ANONYMOUS, AUTHENTICATED, Identity, UNAUTHENTICATED},
    request::query::percent_decode,
};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// The user a request is to be treated as coming from.
///
/// # Errors
/// 400 for headers that are no UTF-8, 500 for headers without a user, 403 if `real` may not impersonate what they name.
pub(crate) async fn impersonate(
    headers: &HeaderMap,
    real: &Arc<UserInfo>,
    authorizer: &Authorizer,
) -> Result<Option<Arc<UserInfo>>, Status> {
    // The common case costs one scan of the header names.
    if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Ok(None);
    }
    let text = |name: &str| -> Result<Vec<String>, Status> {
        let values = headers.get_all(name).iter();
        values.map(|value| utf8(name, value)).collect()
    };
    let name = text(USER)?.into_iter().next().unwrap_or_default();
    let groups = text(GROUP)?;
    let uid = text(UID)?.into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for header in headers.keys() {
        if let Some(key) = header.as_str().strip_prefix(EXTRA) {
            extra.insert(percent_decode(key, false), text(header.as_str())?);
        }
    }
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        return Err(Status::internal("requested impersonation without impersonating a user"));
    }
    let wanted = UserInfo { name, uid, groups, extra };
    // Boxed: it is rare, and would make every request larger.
    Box::pin(permitted(&wanted, real, authorizer)).await?;
    Ok(Some(Arc::new(completed(wanted))))
}

/// A header as text. Names need not be ASCII; one that cannot be read must not be passed over, or the
/// request would go on as the real user.
fn utf8(name: &str, value: &HeaderValue) -> Result<String, Status> {
    std::str::from_utf8(value.as_bytes())
        .map(str::to_owned)
        .map_err(|_| Status::bad_request(format!("header {name:?} is no valid UTF-8")))
}

async fn permitted(
    wanted: &UserInfo,
    real: &UserInfo,
    authorizer: &Authorizer,
) -> Result<(), Status> {
    const AUTHENTICATION: &str = "authentication.k8s.io";
    let base = Attributes {
        verb: "impersonate",
        resource_request: true,
        version: "v1",
        ..Attributes::default()
    };
    let mut asked = vec![match wanted.as_service_account() {
        Some((namespace, name)) => {
            Attributes { resource: "serviceaccounts", namespace, name, ..base }
        }
        None => Attributes { resource: "users", name: &wanted.name, ..base },
    }];
    asked.extend(wanted.groups.iter().map(|name| Attributes { resource: "groups", name, ..base }));
    if !wanted.uid.is_empty() {
        asked.push(Attributes {
            group: AUTHENTICATION,
            resource: "uids",
            name: &wanted.uid,
            ..base
        });
    }
    let extras =
        wanted.extra.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
    asked.extend(extras.map(|(key, name)| Attributes {
        group: AUTHENTICATION,
        resource: "userextras",
        subresource: key,
        name,
        ..base
    }));
    for attributes in &asked {
        authorizer.check(real, attributes).await?;
    }
    Ok(())
}

/// Adds the groups that go without saying.
fn completed(mut user: UserInfo) -> UserInfo {
    if user.groups.is_empty()
        && let Some((namespace, name)) = user.as_service_account()
    {
        user.groups = identity::service_account(namespace, name, "").groups;
    }
    if user.name == ANONYMOUS {
        if !user.in_group(UNAUTHENTICATED) && !user.in_group(AUTHENTICATED) {
            user.groups.push(UNAUTHENTICATED.into());
        }
    } else {
        user.add_authenticated();
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(user: &[u8]) -> Result<Option<Arc<UserInfo>>, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(USER, HeaderValue::from_bytes(user).expect("header"));
        let real = identity::authenticated("proxy", [identity::MASTERS]);
        impersonate(&headers, &real, &Authorizer::new(Vec::new(), Vec::new())).await
    }

    #[tokio::test]
    async fn a_name_that_is_not_ascii_is_never_passed_over() {
        let user = ask("jörg".as_bytes()).await.expect("allowed").expect("impersonated");
        assert_eq!((user.name.as_str(), user.is_master()), ("jörg", false));
        assert_eq!(ask(b"j\xf6rg").await.expect_err("no UTF-8").code, 400);
    }
}
