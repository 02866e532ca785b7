//! What goes in and out of a CNI plugin: configuration, results and errors of the specification
//! (versions 0.3.1 to 1.1.0), as JSON.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::HostPort;

/// Versions of the specification that are spoken, oldest first.
pub(crate) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A failure as the specification wants it reported.
#[derive(Debug)]
pub(crate) struct CniError {
    /// 1 to 99 are the specification's, from 100 on ours.
    pub(crate) code: u32,
    pub(crate) message: &'static str,
    pub(crate) details: String,
}

impl CniError {
    pub(crate) fn new(code: u32, message: &'static str, details: impl ToString) -> Self {
        Self { code, message, details: details.to_string() }
    }

    /// The specification's "necessary environment variables contain invalid values".
    pub(crate) fn environment(details: impl ToString) -> Self {
        Self::new(4, "invalid environment", details)
    }

    /// The specification's "I/O failure".
    pub(crate) fn io(details: impl ToString) -> Self {
        Self::new(5, "input or output failed", details)
    }

    /// The specification's "failed to decode content".
    pub(crate) fn decode(details: impl ToString) -> Self {
        Self::new(6, "undecodable configuration", details)
    }

    /// The specification's "invalid network config".
    pub(crate) fn config(details: impl ToString) -> Self {
        Self::new(7, "invalid network configuration", details)
    }

    /// The specification's "try again later".
    pub(crate) fn later(details: impl ToString) -> Self {
        Self::new(11, "try again later", details)
    }

    /// Ours: the kernel refused.
    pub(crate) fn kernel(details: impl ToString) -> Self {
        Self::new(100, "network setup failed", details)
    }

    /// Ours: CHECK found something else than ADD made.
    pub(crate) fn differs(details: impl ToString) -> Self {
        Self::new(101, "network is not as it was set up", details)
    }

    pub(crate) fn to_json(&self, version: &str) -> Value {
        json!({
            "cniVersion": version, "code": self.code, "msg": self.message, "details": self.details,
        })
    }
}

/// The plugin's configuration, as `install` writes it and the runtime passes it on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) cni_version: String,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) bridge: String,
    #[serde(default)]
    pub(crate) table: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) pod_networks: Vec<IpNet>,
    #[serde(default)]
    pub(crate) leases_dir: PathBuf,
    /// Where a new pod waits for its policies; not at all if there is no such place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy_socket: Option<PathBuf>,
    #[serde(default)]
    pub(crate) nft: PathBuf,
    #[serde(default, skip_serializing)]
    pub(crate) runtime_config: RuntimeConfig,
    #[serde(default, skip_serializing)]
    pub(crate) prev_result: Option<Value>,
    /// Attachments still in use (GC of 1.1.0).
    #[serde(rename = "cni.dev/valid-attachments", default, skip_serializing)]
    pub(crate) valid_attachments: Option<Vec<Attachment>>,
}

/// What the runtime passes for capabilities.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RuntimeConfig {
    #[serde(default)]
    pub(crate) port_mappings: Option<Vec<PortMapping>>,
    #[serde(default)]
    pub(crate) bandwidth: Bandwidth,
}

/// The capability `bandwidth`, in bits a second; 0 is no limit. The runtime reads it off the pod's
/// annotations. What it says of bursts is left out: it has no idea of them.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bandwidth {
    #[serde(alias = "IngressRate", default)]
    pub(crate) ingress_rate: u64,
    #[serde(alias = "EgressRate", default)]
    pub(crate) egress_rate: u64,
}

/// One entry of the capability `portMappings`. The convention's names start with a small letter,
/// those that containerd sends with a capital one: Go's decoder takes either.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PortMapping {
    #[serde(alias = "HostPort", default)]
    host_port: i32,
    #[serde(alias = "ContainerPort", default)]
    container_port: i32,
    #[serde(alias = "Protocol", default)]
    protocol: String,
    #[serde(rename = "hostIP", alias = "HostIP", default)]
    host_ip: String,
}

/// One attachment of GC's list of those in use.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Attachment {
    #[serde(rename = "containerID")]
    pub(crate) container_id: String,
    pub(crate) ifname: String,
}

impl Config {
    /// The ranges of pods here; an error where the configuration lacks them.
    pub(crate) fn networks(&self) -> Result<&[IpNet], CniError> {
        match self.pod_networks.as_slice() {
            [] => Err(CniError::config("podNetworks is missing")),
            networks => Ok(networks),
        }
    }

    /// The port mappings that ask for something, checked. One for an address of a family that pods
    /// here do not have leads nowhere and is left out.
    pub(crate) fn host_ports(&self) -> Result<Vec<HostPort>, CniError> {
        let mappings = self.runtime_config.port_mappings.iter().flatten();
        let mut ports = Vec::new();
        for mapping in mappings.filter(|mapping| mapping.host_port != 0) {
            let port = |number: i32| {
                u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| {
                    CniError::config(format!("{number} is not a port between 1 and 65535"))
                })
            };
            let protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
                "" => "tcp".to_owned(),
                known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
                other => return Err(CniError::config(format!("unknown protocol {other:?}"))),
            };
            let host_ip = match mapping.host_ip.as_str() {
                "" | "0.0.0.0" | "::" => None,
                text => {
                    let parsed: Result<IpAddr, _> = text.parse();
                    let address = parsed
                        .map_err(|_| CniError::config(format!("hostIP {text:?} is no address")))?;
                    let family = |pods: &IpNet| pods.addr().is_ipv4() == address.is_ipv4();
                    if !self.pod_networks.iter().any(family) {
                        continue;
                    }
                    Some(address)
                }
            };
            ports.push(HostPort {
                host_port: port(mapping.host_port)?,
                container_port: port(mapping.container_port)?,
                protocol,
                host_ip,
            });
        }
        Ok(ports)
    }
}

/// What ADD made, for the result.
pub(crate) struct Attached<'a> {
    pub(crate) bridge: (&'a str, String),
    pub(crate) host: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) hardware_address: String,
    pub(crate) netns: &'a str,
    /// Addresses with their gateways.
    pub(crate) addresses: Vec<(IpAddr, IpAddr)>,
    pub(crate) mtu: u32,
}

impl Attached<'_> {
    /// The result in the words of `version`.
    pub(crate) fn to_json(&self, version: &str) -> Value {
        let ip = |(address, gateway): &(IpAddr, IpAddr)| {
            let (length, family) = if address.is_ipv4() { (32, "4") } else { (128, "6") };
            let mut ip = json!({
                "interface": 2, "address": format!("{address}/{length}"), "gateway": gateway,
            });
            if version.starts_with("0.") {
                ip["version"] = family.into();
            }
            ip
        };
        let route = |(_, gateway): &(IpAddr, IpAddr)| {
            let all = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            json!({ "dst": all, "gw": gateway })
        };
        let mut container = json!({
            "name": self.interface, "mac": self.hardware_address, "sandbox": self.netns,
        });
        if version == "1.1.0" {
            container["mtu"] = self.mtu.into();
        }
        json!({
            "cniVersion": version,
            "interfaces": [
                {"name": self.bridge.0, "mac": self.bridge.1},
                {"name": self.host},
                container,
            ],
            "ips": self.addresses.iter().map(ip).collect::<Vec<_>>(),
            "routes": self.addresses.iter().map(route).collect::<Vec<_>>(),
            "dns": {},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        serde_json::from_str(text).expect("configuration")
    }

    #[test]
    fn port_mappings_are_checked() {
        let ports = config(
            r#"{"podNetworks":["10.244.0.0/24"],"runtimeConfig":{"portMappings":[
                {"hostPort":8080,"containerPort":80,"protocol":"TCP"},
                {"hostPort":0,"containerPort":81},
                {"hostPort":53,"containerPort":53,"protocol":"udp","hostIP":"127.0.0.1"},
                {"hostPort":53,"containerPort":53,"hostIP":"fd00::1"}]}}"#,
        )
        .host_ports()
        .expect("ports");
        assert_eq!(ports.len(), 2);
        let as_containerd = config(
            r#"{"podNetworks":["10.244.0.0/24"],"runtimeConfig":{"portMappings":[
                {"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":"127.0.0.1"}]}}"#,
        )
        .host_ports()
        .expect("ports");
        assert_eq!((as_containerd[0].host_port, as_containerd[0].container_port), (8080, 80));
        assert_eq!(as_containerd[0].host_ip, Some(std::net::Ipv4Addr::LOCALHOST.into()));
        assert_eq!((ports[0].host_port, ports[0].protocol.as_str()), (8080, "tcp"));
        assert_eq!(ports[1].host_ip, Some(std::net::Ipv4Addr::LOCALHOST.into()));
        for bad in [
            r#"{"hostPort":70000,"containerPort":80}"#,
            r#"{"hostPort":80,"containerPort":80,"protocol":"icmp"}"#,
            r#"{"hostPort":80,"containerPort":80,"hostIP":"here"}"#,
        ] {
            let text = format!(r#"{{"runtimeConfig":{{"portMappings":[{bad}]}}}}"#);
            assert_eq!(config(&text).host_ports().expect_err("bad").code, 7, "{bad}");
        }
    }
}
