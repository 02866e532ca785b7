//! Where the cluster's servers are: what the agent was told, what it learnt, and what it saved.

use std::path::{Path, PathBuf};

use client::{Caches, Select, ServerAddress, Servers};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Follows the endpoints of the Service `default/kubernetes`, and remembers them.
pub(super) async fn learn(
    caches: Caches,
    servers: Servers,
    told: Vec<ServerAddress>,
    tunnels: watch::Sender<Vec<String>>,
    path: PathBuf,
    shutdown: CancellationToken,
) {
    let select = Select::all().namespace("default").labels("kubernetes.io/service-name=kubernetes");
    let slices = caches.selected::<EndpointSlice>(select);
    let mut changes = slices.subscribe();
    let work = async {
        slices.ready().await;
        while changes.next().await.is_some() {
            let found: Vec<ServerAddress> =
                slices.list().iter().flat_map(|slice| addresses(slice)).collect();
            if found.is_empty() {
                continue;
            }
            let all = merged(&told, &found);
            if all != servers.addresses() {
                tracing::info!(servers = urls(&all).join(","), "servers of the cluster");
                servers.replace(all.clone());
            }
            if let Err(error) = save(&path, &all) {
                tracing::warn!(%error, "the servers' addresses cannot be saved");
            }
            // A tunnel leads to one server: an address that may be a load balancer's is none.
            tunnels.send_if_modified(|current| {
                let found = found.iter().map(|server| server.authority().to_owned()).collect();
                let differs = *current != found;
                *current = found;
                differs
            });
        }
    };
    shutdown.run_until_cancelled(work).await;
}

/// What the agent was told first, then what it learnt.
fn merged(told: &[ServerAddress], found: &[ServerAddress]) -> Vec<ServerAddress> {
    let mut all = told.to_vec();
    for server in found {
        if !all.contains(server) {
            all.push(server.clone());
        }
    }
    all
}

fn addresses(slice: &EndpointSlice) -> Vec<ServerAddress> {
    let port = slice.ports.iter().flatten().find_map(|port| port.port).unwrap_or(443);
    let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    });
    let mut found: Vec<ServerAddress> = ready
        .flat_map(|endpoint| &endpoint.addresses)
        .filter_map(|address| match address.contains(':') {
            true => format!("https://[{address}]:{port}").parse().ok(),
            false => format!("https://{address}:{port}").parse().ok(),
        })
        .collect();
    found.sort_by(|a, b| a.authority().cmp(b.authority()));
    found
}

fn urls(servers: &[ServerAddress]) -> Vec<String> {
    servers.iter().map(ServerAddress::url).collect()
}

/// The servers of an earlier run.
pub(super) fn saved(path: &Path) -> Vec<ServerAddress> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Remembers the servers.
pub(super) fn save(path: &Path, servers: &[ServerAddress]) -> Result<(), pki::PkiError> {
    let known = saved(path);
    if known == servers {
        return Ok(());
    }
    pki::write_public(path, (urls(servers).join("\n") + "\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_learnt_and_remembered() {
        let slice: EndpointSlice = serde_json::from_value(serde_json::json!({
            "addressType": "IPv4", "metadata": {},
            "endpoints": [{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.1"]},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false}}],
            "ports": [{"port": 6443}]
        }))
        .unwrap();
        let told = vec![
            "https://api.example:443".parse().unwrap(),
            "https://10.0.0.2:6443".parse().unwrap(),
        ];
        let all = merged(&told, &addresses(&slice));
        let urls = urls(&all);
        assert_eq!(
            urls,
            ["https://api.example:443", "https://10.0.0.2:6443", "https://10.0.0.1:6443"]
        );
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("servers");
        assert!(saved(&path).is_empty());
        save(&path, &all).unwrap();
        assert_eq!(saved(&path), all);
    }
}
