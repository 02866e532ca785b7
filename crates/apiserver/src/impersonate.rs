//! Acting as somebody else: the `Impersonate-*` headers, and the permissions they need.
//!
//! Refuses to know how the real user authenticated.

use std::{collections::BTreeMap, sync::Arc};

use http::HeaderMap;
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
/// 400 for headers without a user, 403 if `real` may not impersonate what they name.
pub(crate) fn impersonate(
    headers: &HeaderMap,
    real: &Arc<UserInfo>,
    authorizer: &Authorizer,
) -> Result<Option<Arc<UserInfo>>, Status> {
    // The common case costs one scan of the header names.
    if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Ok(None);
    }
    let text = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.map(str::to_owned).collect()
    };
    let name = text(USER).into_iter().next().unwrap_or_default();
    let groups = text(GROUP);
    let uid = text(UID).into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for header in headers.keys() {
        if let Some(key) = header.as_str().strip_prefix(EXTRA) {
            extra.insert(percent_decode(key, false), text(header.as_str()));
        }
    }
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        return Err(Status::internal("requested impersonation without impersonating a user"));
    }
    let wanted = UserInfo { name, uid, groups, extra };
    permitted(&wanted, real, authorizer)?;
    Ok(Some(Arc::new(completed(wanted))))
}

fn permitted(wanted: &UserInfo, real: &UserInfo, authorizer: &Authorizer) -> Result<(), Status> {
    let ask = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let attributes = Attributes {
            verb: "impersonate",
            resource_request: true,
            group,
            version: "v1",
            resource,
            subresource,
            namespace,
            name,
            ..Attributes::default()
        };
        authorizer.check(real, &attributes)
    };
    match wanted.as_service_account() {
        Some((namespace, name)) => ask("", "serviceaccounts", "", namespace, name)?,
        None => ask("", "users", "", "", &wanted.name)?,
    }
    for group in &wanted.groups {
        ask("", "groups", "", "", group)?;
    }
    if !wanted.uid.is_empty() {
        ask("authentication.k8s.io", "uids", "", "", &wanted.uid)?;
    }
    for (key, values) in &wanted.extra {
        for value in values {
            ask("authentication.k8s.io", "userextras", key, "", value)?;
        }
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
