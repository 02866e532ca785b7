//! What all nodes of a cluster must agree on: the ConfigMap `kube-system/skiff-cluster`, and a node's
//! copy of it for starts without a server.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::ValueEnum;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;

/// Where it is.
const NAMESPACE: &str = "kube-system";
const NAME: &str = "skiff-cluster";

/// How packets get from node to node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// In UDP packets between the nodes.
    Vxlan,
    /// As they are, by routes.
    HostGw,
}

impl Backend {
    /// In the network's terms; `id` and `port` are those of VXLAN.
    pub(crate) fn network(self, (id, port): (u32, u16)) -> network::Backend {
        match self {
            Self::Vxlan => network::Backend::Vxlan { id, port },
            Self::HostGw => network::Backend::HostGateway,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
        })
    }
}

impl FromStr for Backend {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "vxlan" => Ok(Self::Vxlan),
            "host-gw" => Ok(Self::HostGw),
            other => bail!("there is no network backend {other:?}"),
        }
    }
}

/// The cluster, as far as nodes must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterInfo {
    /// Addresses of pods, at most one range a family.
    pub(crate) cluster_cidrs: Vec<IpNet>,
    /// Addresses of Services, at most one range a family.
    pub(crate) service_cidrs: Vec<IpNet>,
    /// Prefix lengths of a node's IPv4 and IPv6 range.
    pub(crate) mask_sizes: (u8, u8),
    /// DNS domain.
    pub(crate) dns_domain: String,
    /// Addresses of the DNS Service, in the order of the ranges.
    pub(crate) dns_addresses: Vec<IpAddr>,
    /// How packets get from node to node.
    pub(crate) backend: Backend,
    /// Number and UDP port of VXLAN.
    pub(crate) vxlan: (u32, u16),
    /// The URL of the server that wrote this last; where all servers are, the endpoints of the
    /// Service `default/kubernetes` say.
    pub(crate) servers: Vec<String>,
}

type Data = BTreeMap<String, String>;

impl ClusterInfo {
    fn to_data(&self) -> Data {
        let words = |words: Vec<String>| words.join(",");
        let text = |list: &[IpNet]| words(list.iter().map(ToString::to_string).collect());
        [
            ("clusterCIDRs", text(&self.cluster_cidrs)),
            ("serviceCIDRs", text(&self.service_cidrs)),
            ("nodeCIDRMaskSizeIPv4", self.mask_sizes.0.to_string()),
            ("nodeCIDRMaskSizeIPv6", self.mask_sizes.1.to_string()),
            ("dnsDomain", self.dns_domain.clone()),
            ("dnsAddresses", words(self.dns_addresses.iter().map(ToString::to_string).collect())),
            ("networkBackend", self.backend.to_string()),
            ("vxlanID", self.vxlan.0.to_string()),
            ("vxlanPort", self.vxlan.1.to_string()),
            ("servers", words(self.servers.clone())),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    fn from_data(data: &Data) -> anyhow::Result<Self> {
        Ok(Self {
            cluster_cidrs: list(data, "clusterCIDRs")?,
            service_cidrs: list(data, "serviceCIDRs")?,
            mask_sizes: (one(data, "nodeCIDRMaskSizeIPv4")?, one(data, "nodeCIDRMaskSizeIPv6")?),
            dns_domain: one(data, "dnsDomain")?,
            dns_addresses: list(data, "dnsAddresses")?,
            backend: one(data, "networkBackend")?,
            vxlan: (one(data, "vxlanID")?, one(data, "vxlanPort")?),
            servers: list(data, "servers")?,
        })
    }

    /// Reads it from the cluster.
    pub(crate) async fn fetch(client: kube::Client) -> anyhow::Result<Self> {
        let map =
            Api::<ConfigMap>::namespaced(client, NAMESPACE).get(NAME).await.with_context(|| {
                format!("read what the cluster's nodes agree on ({NAMESPACE}/{NAME})")
            })?;
        Self::from_data(&map.data.unwrap_or_default())
    }

    /// Writes it to the cluster, over what an earlier start wrote.
    pub(crate) async fn publish(&self, client: kube::Client) -> anyhow::Result<()> {
        let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
        let data = self.to_data();
        publish(&maps, NAME, data).await.with_context(|| format!("write {NAMESPACE}/{NAME}"))
    }

    /// The copy of an earlier start.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Option<Self>> {
        let Some(text) = pki::read(path)? else { return Ok(None) };
        let read = || anyhow::Ok(Some(Self::from_data(&serde_json::from_str(&text)?)?));
        read().with_context(|| {
            format!("{} is damaged: remove it while a server runs", path.display())
        })
    }

    /// Keeps a copy for the next start.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let text =
            serde_json::to_string_pretty(&self.to_data()).context("copy the cluster's facts")?;
        Ok(pki::write_public(path, text.as_bytes())?)
    }
}

/// Makes a ConfigMap hold exactly these data, or adds them to it.
pub(super) async fn publish(
    maps: &Api<ConfigMap>,
    name: &str,
    data: Data,
) -> Result<(), kube::Error> {
    let map = ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(data.clone()),
        ..ConfigMap::default()
    };
    match maps.create(&PostParams::default(), &map).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let patch = Patch::Merge(json!({"data": data}));
            maps.patch(name, &PatchParams::default(), &patch).await.map(drop)
        }
        outcome => outcome.map(drop),
    }
}

fn one<T: FromStr>(data: &Data, key: &str) -> anyhow::Result<T> {
    let value = data.get(key).with_context(|| format!("{NAMESPACE}/{NAME} lacks {key}"))?;
    value.parse().ok().with_context(|| format!("{NAMESPACE}/{NAME} has a bad {key}: {value:?}"))
}

fn list<T: FromStr>(data: &Data, key: &str) -> anyhow::Result<Vec<T>> {
    let value: String = one(data, key)?;
    let words = value.split(',').filter(|word| !word.is_empty());
    words
        .map(|word| {
            word.parse()
                .ok()
                .with_context(|| format!("{NAMESPACE}/{NAME} has a bad {key}: {word:?}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let info = ClusterInfo {
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap(), "fd00:1::/56".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
            mask_sizes: (24, 64),
            dns_domain: "cluster.local".into(),
            dns_addresses: vec!["10.96.0.10".parse().unwrap()],
            backend: Backend::HostGw,
            vxlan: (1, 8472),
            servers: vec!["https://10.0.0.1:6443".into(), "https://[fd00::1]:6443".into()],
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cluster.json");
        assert!(ClusterInfo::load(&path).unwrap().is_none());
        info.save(&path).unwrap();
        assert_eq!(ClusterInfo::load(&path).unwrap(), Some(info.clone()));
        let mut data = info.to_data();
        data.insert("networkBackend".into(), "carrier pigeon".into());
        let error = ClusterInfo::from_data(&data).unwrap_err().to_string();
        assert!(error.contains("networkBackend"), "{error}");
        std::fs::write(&path, "torn").unwrap();
        assert!(ClusterInfo::load(&path).is_err());
    }
}
