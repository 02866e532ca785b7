//! Joining: whom to trust, by which identities to speak, and what the cluster's nodes agree on.
//!
//! A machine that has joined before needs neither token nor server to start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use client::{Caches, Remote, ServerAddress, Servers};
use http::header::DATE;
use http_body_util::{BodyExt, Limited};
use pki::{Identity, JoinToken};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serve::tls::{Certificate, client_config, rotating_client_config, unverified_client_config};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::request::{Refused, obtain};
use super::rotate::{Rotation, present};
use super::{Wanted, servers};
use crate::cluster::info::ClusterInfo;
use crate::cluster::lifecycle::Departure;
use crate::cluster::node::Access;
use crate::cluster::options::NodePlan;
use crate::cluster::{Part, step};

/// How long the cluster may take to give a new machine an identity.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pauses between attempts, the first and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long a server may take to tell its authority, and how long that may be, in bytes.
const AUTHORITY: (Duration, usize) = (Duration::from_secs(10), 1 << 20);
/// By how much clocks may differ: certificates are valid from five minutes ago.
const SKEW: Duration = Duration::from_secs(240);

/// How to find the cluster, from the command line.
pub(in crate::cluster) struct Join {
    pub(in crate::cluster) servers: Vec<ServerAddress>,
    pub(in crate::cluster) token: Option<JoinToken>,
}

/// Where an agent keeps what it knows of its cluster.
struct Files {
    directory: PathBuf,
    authority: PathBuf,
    servers: PathBuf,
    info: PathBuf,
}

/// Becomes a node, or is one again.
pub(in crate::cluster) async fn join(
    node: &NodePlan,
    join: Join,
    parts: &mut JoinSet<Part>,
    shutdown: &CancellationToken,
) -> anyhow::Result<(Access, ClusterInfo)> {
    let directory = node.layout.pki();
    let files = Files {
        authority: directory.join("server-ca.crt"),
        directory,
        servers: node.layout.root().join("servers"),
        info: node.layout.root().join("cluster.json"),
    };
    let servers = known_servers(&join, &files)?;
    let known = saved_identity(node, &files)?;
    let authority = match (&known, &join.token) {
        (Some(_), token) => saved_authority(&files, token.as_ref())?,
        (None, Some(token)) => {
            insist(async || trusted_authority(&servers, token, &files).await).await?
        }
        (None, None) => bail!(
            "this machine has not joined a cluster yet: give --token as `skiff token create` on a server prints it"
        ),
    };
    let identity = match known {
        Some(identity) => identity,
        None => {
            let token = join.token.as_ref().context("a token is there")?;
            let ask = async || first_identity(node, &servers, token, &authority, &files).await;
            let identity = insist(ask).await?;
            servers::save(&files.servers, &servers.addresses())?;
            step("the cluster knows this node");
            identity
        }
    };
    let joined = Joined { node, servers, told: join.servers, authority, files };
    joined.access(identity, parts, shutdown).await
}

fn known_servers(join: &Join, files: &Files) -> anyhow::Result<Servers> {
    let mut known = join.servers.clone();
    for server in servers::saved(&files.servers) {
        if !known.contains(&server) {
            known.push(server);
        }
    }
    if known.is_empty() {
        bail!("no server is known: give --server https://<address>:6443");
    }
    Ok(Servers::new(known))
}

/// The identity of an earlier run, if it is still good for something.
fn saved_identity(node: &NodePlan, files: &Files) -> anyhow::Result<Option<Identity>> {
    let wanted = Wanted::kubelet(node);
    let path = files.directory.join(format!("{}.pem", wanted.name));
    let Some(identity) = Identity::load(&path)? else { return Ok(None) };
    let name = identity.subject()?.common_name;
    if name != wanted.profile.common_name {
        bail!(
            "this machine joined as {}: give --node-name {}, or another --data-dir to join as another node",
            name.trim_start_matches("system:node:"),
            name.trim_start_matches("system:node:")
        );
    }
    let (start, end) = identity.validity()?;
    let now = jiff::Timestamp::now();
    if start > now {
        let early = Duration::try_from(start.duration_since(now)).unwrap_or_default();
        bail!(
            "this machine's clock is wrong by at least {}: its certificate becomes valid at {start} only; set the clock",
            say(early)
        );
    }
    if end <= now {
        tracing::warn!(%end, "this node's certificate has expired; joining again");
        return Ok(None);
    }
    Ok(Some(identity))
}

fn saved_authority(files: &Files, token: Option<&JoinToken>) -> anyhow::Result<String> {
    let text = pki::read(&files.authority)?.with_context(|| {
        format!("{} is missing: join again with another --data-dir", files.authority.display())
    })?;
    if let Some(token) = token
        && authority_hash(&text)? != token.authority
    {
        bail!(
            "this machine has joined another cluster than the token's: to leave that, run `skiff down --purge` here"
        );
    }
    Ok(text)
}

fn authority_hash(pem: &str) -> anyhow::Result<String> {
    Ok(pki::authority_hash(&der(pem)?)?)
}

/// Tries until it works, or is refused: a cluster that starts, restarts or is cut off answers later.
async fn insist<T>(mut attempt: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let (mut pause, mut said) = (AGAIN.0, String::new());
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if error.is::<Refused>() => return Err(error),
            Err(error) => format!("{error:#}"),
        };
        if error != said {
            tracing::warn!("not joined yet, trying on: {error}");
            said = error;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN.1);
    }
}

/// The cluster's authority, as a server tells it to anybody, if it is the one the token was made for.
async fn trusted_authority(
    servers: &Servers,
    token: &JoinToken,
    files: &Files,
) -> anyhow::Result<String> {
    let client = Remote::new(servers.clone(), &*unverified_client_config()?, None).client();
    let request = http::Request::get("/api/v1/namespaces/kube-public/configmaps/cluster-info")
        .body(kube::client::Body::empty())
        .context("ask for the cluster's authority")?;
    let told = async {
        let response = client.send(request).await.map_err(|error| unreachable(servers, &error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, AUTHORITY.1).collect().await;
        let body = body.map_err(|error| anyhow!("read the cluster's authority: {error}"))?;
        anyhow::Ok((head, body.to_bytes()))
    };
    let told = tokio::time::timeout(AUTHORITY.0, told).await;
    let (head, bytes) = told.context("the server does not tell its authority in time")??;
    check_clock(head.headers.get(DATE).and_then(|date| date.to_str().ok()))?;
    if !head.status.is_success() {
        bail!(
            "the server does not tell its authority (HTTP {}): is it a server of skiff, and is it ready?",
            head.status
        );
    }
    let text = read_authority(&bytes).context("read the cluster's authority")?;
    let found = authority_hash(&text)?;
    if found != token.authority {
        bail!(Refused(format!(
            "the server's authority is not the one the token was made for (its hash is {found}, the token says {}): \
             the token is another cluster's, or somebody stands between this machine and the server",
            token.authority
        )));
    }
    pki::write_public(&files.authority, text.as_bytes())?;
    Ok(text)
}

/// Takes the authority out of the ConfigMap `kube-public/cluster-info`.
fn read_authority(map: &[u8]) -> anyhow::Result<String> {
    let map: k8s_openapi::api::core::v1::ConfigMap = serde_json::from_slice(map)?;
    let text =
        map.data.unwrap_or_default().remove("kubeconfig").context("there is no kubeconfig")?;
    let config = kube::config::Kubeconfig::from_yaml(&text)?;
    let cluster = config.clusters.into_iter().next().and_then(|named| named.cluster);
    let data = cluster.and_then(|cluster| cluster.certificate_authority_data);
    use base64::Engine as _;
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(data.context("it names no authority")?)?;
    Ok(String::from_utf8(bytes)?)
}

/// Certificates mean nothing to machines that disagree on the time.
fn check_clock(date: Option<&str>) -> anyhow::Result<()> {
    let Some(server) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        return Ok(());
    };
    let here = SystemTime::now();
    let (skew, how) = match here.duration_since(server) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    if skew > SKEW {
        bail!(
            "this machine's clock is {} {how} the server's: set it, certificates would not be valid",
            say(skew)
        );
    }
    Ok(())
}

/// A time as people say it.
fn say(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, _, _) => format!("{days} d {hours} h"),
    }
}

fn unreachable(servers: &Servers, error: &kube::Error) -> anyhow::Error {
    let urls: Vec<String> = servers.addresses().iter().map(ServerAddress::url).collect();
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    anyhow!(
        "no server answers at {}: {cause}; is it running, and does nothing on the way block its port?",
        urls.join(", ")
    )
}

/// Asks for this machine's identity with the token's rights.
async fn first_identity(
    node: &NodePlan,
    servers: &Servers,
    token: &JoinToken,
    authority: &str,
    files: &Files,
) -> anyhow::Result<Identity> {
    let tls = client_config(&[der(authority)?], None)?;
    let client = Remote::new(servers.clone(), &tls, Some(&token.bearer())).client();
    let wanted = Wanted::kubelet(node);
    let asked = tokio::time::timeout(PATIENCE, obtain(&client, &wanted, &files.directory)).await;
    let error = match asked {
        Ok(Ok(identity)) => return Ok(identity),
        Err(_) => bail!(
            "the cluster has not given this machine an identity within {} s: do its controllers run? \
             `kubectl get csr` on a server shows the request",
            PATIENCE.as_secs()
        ),
        Ok(Err(error)) => error,
    };
    if let Some(refused) = error.downcast_ref::<Refused>() {
        bail!(Refused(format!("the cluster refuses this machine: {refused}")));
    }
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) if status.code == 401 => bail!(Refused(format!(
            "the server does not accept the token {}: it is wrong, was deleted, or has expired; \
             `skiff token create` on a server prints a new one",
            token.id
        ))),
        // What was found missing, busy, taken or too much may be so no longer.
        Some(kube::Error::Api(status))
            if (400..500).contains(&status.code)
                && !matches!(status.code, 404 | 408 | 409 | 429) =>
        {
            bail!(Refused(format!("{error:#}")))
        }
        Some(kube::Error::Api(_)) | None => Err(error),
        Some(other) => Err(unreachable(servers, other)),
    }
}

fn der(authority: &str) -> anyhow::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(authority.as_bytes())
        .map_err(|error| anyhow!("the authority's certificate cannot be read: {error}"))
}

/// A node with its first identity.
struct Joined<'a> {
    node: &'a NodePlan,
    servers: Servers,
    told: Vec<ServerAddress>,
    authority: String,
    files: Files,
}

impl Joined<'_> {
    /// Gets everything else that goes with it, from the cluster or from an earlier run, and starts to
    /// keep it fresh.
    async fn access(
        self,
        identity: Identity,
        parts: &mut JoinSet<Part>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<(Access, ClusterInfo)> {
        let authority = der(&self.authority)?;
        let (kubelet_certificate, kubelet) = self.remote(&authority)?;
        present(&kubelet_certificate, &identity)?;
        let client = kubelet.client();
        let (network_certificate, network) = self.remote(&authority)?;
        let network_identity = self.saved(&Wanted::network(self.node));
        let asked = async {
            match network_identity {
                Some(identity) => Ok(identity),
                None => insist(async || self.obtain_network(&client).await).await,
            }
        };
        let info = insist(async || self.info(&client).await);
        let (network_identity, info) = tokio::try_join!(asked, info)?;
        present(&network_certificate, &network_identity)?;
        let serving = Certificate::pending();
        let serving_identity =
            self.saved(&Wanted::serving(self.node)).filter(|known| self.serves(known));
        if let Some(identity) = &serving_identity {
            present(&serving, identity)?;
        }
        let tls =
            rotating_client_config(std::slice::from_ref(&authority), kubelet_certificate.clone())?;
        let told = self.servers.addresses().iter().map(|s| s.authority().to_owned()).collect();
        let tunnels = watch::Sender::new(told);
        let tunnel = serve::tunnel::AgentOptions {
            servers: tunnels.subscribe(),
            tls,
            path: apiserver::TUNNEL_PATH,
        };
        let mut keep = |wanted, certificate: &Arc<Certificate>, remote, current| {
            let rotation = Rotation {
                wanted,
                directory: self.files.directory.clone(),
                asker: client.clone(),
                certificate: certificate.clone(),
                remote,
                current,
            };
            let stop = shutdown.clone();
            parts.spawn(async move {
                rotation.run(stop).await;
                ("the renewal of a certificate", Ok(()))
            });
        };
        let (node, kubelet) = (self.node, kubelet.clone());
        keep(Wanted::kubelet(node), &kubelet_certificate, Some(kubelet), Some(identity));
        keep(
            Wanted::network(node),
            &network_certificate,
            Some(network.clone()),
            Some(network_identity),
        );
        keep(Wanted::serving(node), &serving, None, serving_identity);
        let (caches, stop) = (Caches::new(network.client(), shutdown.clone()), shutdown.clone());
        let learning =
            servers::learn(caches, self.servers, self.told, tunnels, self.files.servers, stop);
        parts.spawn(async move {
            learning.await;
            ("the search for servers", Ok(()))
        });
        let network = network.client();
        let access = Access {
            kubelet: client,
            network,
            serving,
            authority,
            tunnel: Some(tunnel),
            led: CancellationToken::new(),
            departure: Departure::alone(),
        };
        Ok((access, info))
    }

    fn remote(
        &self,
        authority: &CertificateDer<'static>,
    ) -> anyhow::Result<(Arc<Certificate>, Remote)> {
        let certificate = Certificate::pending();
        let tls = rotating_client_config(std::slice::from_ref(authority), certificate.clone())?;
        Ok((certificate, Remote::new(self.servers.clone(), &tls, None)))
    }

    async fn obtain_network(&self, client: &kube::Client) -> anyhow::Result<Identity> {
        let wanted = Wanted::network(self.node);
        let asked = obtain(client, &wanted, &self.files.directory);
        let in_time = tokio::time::timeout(PATIENCE, asked).await;
        in_time.context("the cluster has not given this node's network an identity")?
    }

    /// What an earlier run obtained, if it may still be shown.
    fn saved(&self, wanted: &Wanted) -> Option<Identity> {
        let path = self.files.directory.join(format!("{}.pem", wanted.name));
        let identity = Identity::load(&path).ok().flatten()?;
        let (_, end) = identity.validity().ok()?;
        let subject = identity.subject().ok()?;
        (end > jiff::Timestamp::now() && subject == (&wanted.profile).into()).then_some(identity)
    }

    /// Whether a serving certificate is for the addresses the node has now.
    fn serves(&self, identity: &Identity) -> bool {
        identity.covers(&Wanted::serving(self.node).profile)
    }

    /// What nodes agree on: as it was at the last start, read again for the next one; from the cluster
    /// at the first.
    async fn info(&self, client: &kube::Client) -> anyhow::Result<ClusterInfo> {
        let path = self.files.info.clone();
        if let Some(known) = ClusterInfo::load(&path)? {
            let (client, saved) = (client.clone(), known.clone());
            tokio::spawn(async move {
                match ClusterInfo::fetch(client).await {
                    // Each server says its own address there; agents learn of all elsewhere.
                    Ok(now)
                        if ClusterInfo { servers: saved.servers.clone(), ..now.clone() }
                            != saved =>
                    {
                        tracing::warn!(
                            "what the cluster's nodes agree on has changed: restart this agent"
                        );
                        if let Err(error) = now.save(&path) {
                            tracing::warn!("{error:#}");
                        }
                    }
                    Ok(_) => {}
                    Err(error) => tracing::debug!("{error:#}"),
                }
            });
            return Ok(known);
        }
        let info = ClusterInfo::fetch(client.clone()).await?;
        info.save(&path)?;
        Ok(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_disagree_are_named() {
        let date = |offset: i64| {
            let now = SystemTime::now();
            let then = if offset < 0 {
                now - Duration::from_secs(offset.unsigned_abs())
            } else {
                now + Duration::from_secs(offset.unsigned_abs())
            };
            httpdate::fmt_http_date(then)
        };
        assert!(check_clock(None).is_ok());
        assert!(check_clock(Some(&date(100))).is_ok());
        let behind = check_clock(Some(&date(7205))).unwrap_err().to_string();
        assert!(behind.contains("2 h 0 min behind the server's"), "{behind}");
        let ahead = check_clock(Some(&date(-90_000))).unwrap_err().to_string();
        assert!(ahead.contains("1 d 1 h ahead of"), "{ahead}");
    }
}
