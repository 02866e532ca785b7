//! On whose behalf each part of the cluster acts. The names are upstream's, so that the default roles
//! apply to them.

use std::sync::Arc;

use apiserver::ApiServer;
use client::Caches;
use registry::UserInfo;
use tokio_util::sync::CancellationToken;

use super::options::ServerPlan;

/// A client of the API server in this process, as `name` in `groups`.
pub(super) fn client(api: &ApiServer, name: &str, groups: &[&str]) -> kube::Client {
    let groups = groups.iter().chain(&["system:authenticated"]).map(ToString::to_string).collect();
    let user = UserInfo { name: name.to_owned(), groups, ..UserInfo::default() };
    kube::Client::new(api.in_process(Arc::new(user)), "default")
}

/// Caches over such a client.
pub(super) fn caches(
    api: &ApiServer,
    name: &str,
    groups: &[&str],
    shutdown: &CancellationToken,
) -> Caches {
    Caches::new(client(api, name, groups), shutdown.clone())
}

/// As whom this server takes part in elections; nobody where there is no other.
pub(super) fn candidate(plan: &ServerPlan) -> Option<String> {
    plan.flags.datastore.is_shared().then(|| plan.advertised().to_string())
}
