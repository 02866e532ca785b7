//! What a server may reach through this node's tunnel: the kubelet's own port, the node's pods, and Services. Nothing
//! else, and no other port of the node.
//!
//! The decision is pure; connecting is here too. Knows nothing of how the tunnel works.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, atomic::Ordering::Acquire},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::core::v1 as api;
use serve::tunnel::Dial;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    context::Context,
    pod::{PodState, Sandbox},
    spec::host_network,
};

/// How long the kubelet may take to learn which pods it has.
const START: Duration = Duration::from_secs(3);

/// Dials for the servers.
pub(crate) struct Reach {
    pub(crate) context: Arc<Context>,
    /// The port the kubelet's API really listens on.
    pub(crate) kubelet_port: u16,
}

impl Dial for Reach {
    fn dial(&self, address: IpAddr, port: u16) -> BoxFuture<'_, io::Result<TcpStream>> {
        async move {
            let known = async {
                // Right after the kubelet's start it does not know yet which pods it has.
                while self.way(address, port).is_none() && !self.context.listed.load(Acquire) {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            let _ = timeout(START, known).await;
            match self.way(address, port) {
                Some(target) => TcpStream::connect(target).await,
                None => Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "neither this node's kubelet, nor one of its pods, nor a Service",
                )),
            }
        }
        .boxed()
    }
}

impl Reach {
    fn way(&self, address: IpAddr, port: u16) -> Option<SocketAddr> {
        let options = &self.context.options;
        let place = Place {
            node_ips: &options.node_ips,
            external_ips: &options.external_ips,
            kubelet_port: self.kubelet_port,
            listen: options.listen.ip(),
        };
        let pods = self.context.pods.lock();
        let states = pods.values().map(|state| &**state);
        place.way(address, port, states, || self.context.services.list())
    }
}

/// Where this kubelet is.
struct Place<'a> {
    node_ips: &'a [IpAddr],
    external_ips: &'a [IpAddr],
    kubelet_port: u16,
    listen: IpAddr,
}

impl Place<'_> {
    /// What to connect to for an address and a port that a server asks for; none if it may not.
    fn way<'a>(
        &self,
        address: IpAddr,
        port: u16,
        mut pods: impl Iterator<Item = &'a PodState>,
        services: impl FnOnce() -> Vec<Arc<api::Service>>,
    ) -> Option<SocketAddr> {
        let asked = SocketAddr::new(address, port);
        let own = [self.node_ips, self.external_ips, &[self.listen]].concat().contains(&address);
        if port == self.kubelet_port && own {
            // The address may be one by which only others know this machine.
            return Some(SocketAddr::new(local(self.listen), port));
        }
        let here = pods.any(|state| {
            if host_network(&state.pod) {
                return self.node_ips.contains(&address) && declares(&state.pod, port);
            }
            has_address(state, address)
        });
        let allowed = here || services().iter().any(|service| is_at(service, address, port));
        allowed.then_some(asked)
    }
}

/// Where to connect to what listens at `address`.
fn local(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

fn has_address(state: &PodState, address: IpAddr) -> bool {
    let Sandbox::Ready { ips, .. } = &state.sandbox else { return false };
    ips.iter().any(|ip| ip.parse() == Ok(address))
}

/// Whether a container of the pod says that it listens on the port.
fn declares(pod: &api::Pod, port: u16) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.any(|declared| declared.container_port == i32::from(port))
}

/// Whether the Service has this address and this port.
fn is_at(service: &api::Service, address: IpAddr, port: u16) -> bool {
    let Some(spec) = &service.spec else { return false };
    let mut addresses = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    addresses.any(|ip| ip.parse() == Ok(address))
        && spec.ports.iter().flatten().any(|served| served.port == i32::from(port))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::pod;

    fn pod(host: bool, ip: &str, port: u16) -> PodState {
        let pod = json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": {
            "hostNetwork": host,
            "containers": [{"name": "c", "ports": [{"containerPort": port}]}]}});
        let mut state = pod::new(Arc::new(serde_json::from_value(pod).unwrap()), Timestamp::now());
        let ips = if host { vec![] } else { vec![ip.to_owned()] };
        state.sandbox = Sandbox::Ready { id: "s".into(), attempt: 0, ips };
        state
    }

    /// What a node at 192.0.2.1 with two pods and a Service lets through.
    fn check(target: &str, expected: Option<&str>) {
        let place = Place {
            node_ips: &["192.0.2.1".parse().unwrap()],
            external_ips: &["203.0.113.1".parse().unwrap()],
            kubelet_port: 10250,
            listen: Ipv4Addr::UNSPECIFIED.into(),
        };
        let pods = [pod(false, "10.244.1.7", 80), pod(true, "", 9100)];
        let service = json!({"spec": {"clusterIP": "10.96.0.20", "ports": [{"port": 443}]}});
        let services = vec![Arc::new(serde_json::from_value(service).unwrap())];
        let target: SocketAddr = target.parse().unwrap();
        let way = place.way(target.ip(), target.port(), pods.iter(), || services);
        assert_eq!(way, expected.map(|way| way.parse().unwrap()), "{target}");
    }

    #[test]
    fn only_the_kubelet_pods_and_services_are_reached() {
        check("192.0.2.1:10250", Some("127.0.0.1:10250"));
        check("203.0.113.1:10250", Some("127.0.0.1:10250"));
        check("10.244.1.7:80", Some("10.244.1.7:80"));
        check("10.244.1.7:8080", Some("10.244.1.7:8080"));
        check("192.0.2.1:9100", Some("192.0.2.1:9100"));
        check("10.96.0.20:443", Some("10.96.0.20:443"));
        for nobody in [
            "192.0.2.1:22",
            "127.0.0.1:10250",
            "127.0.0.1:9100",
            "[::1]:22",
            "10.244.1.1:22",
            "10.244.2.7:80",
            "10.96.0.20:80",
            "169.254.169.254:80",
            "192.0.2.9:10250",
            "0.0.0.0:22",
            "203.0.113.1:22",
        ] {
            check(nobody, None);
        }
    }
}
