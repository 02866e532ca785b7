//! Answers to load balancers that ask whether to send traffic here: a port for each Service with
//! external traffic policy Local, and one for the node as a whole.
//!
//! Nothing listens until a Service asks for it: the first kind by its health-check node port, the
//! other by being of type LoadBalancer without one. Whoever asks need not authenticate, as load
//! balancers cannot, and learns no more than a count. Knows nothing of the table.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use client::ObjectKey;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::{
    api::{
        core::v1::{Node, Service},
        discovery::v1::EndpointSlice,
    },
    jiff::Timestamp,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
};

use super::{endpoints::ready_here, plan::is_served};
use crate::options::NetworkOptions;

/// Connections served at once on one port; load balancers open few.
const CONNECTIONS: usize = 64;
/// How long a client may take for its request.
const PATIENCE: Duration = Duration::from_secs(5);
const BACKLOG: u32 = 64;
/// A node that is about to be removed gets no new traffic.
const REMOVAL_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// What is answered about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    /// A Service and its ready endpoints on this node.
    Service(ObjectKey, usize),
    /// The node.
    Node,
}

/// What every port answers from.
#[derive(Debug, Clone, Default)]
struct Facts {
    ports: BTreeMap<u16, Asked>,
    /// When the table was last right; `None` until it was.
    updated: Option<Timestamp>,
    /// Whether it is now.
    healthy: bool,
    /// Whether the node may get new traffic at all.
    eligible: bool,
}

/// The answering ports.
pub(crate) struct Health {
    node: String,
    node_port: u16,
    facts: Arc<parking_lot::RwLock<Facts>>,
    /// Which port each Service asks for; the node's for those that ask about it.
    asked: HashMap<ObjectKey, u16>,
    listening: HashMap<u16, AbortHandle>,
    /// Ports that could not be opened, which is told once.
    refused: BTreeSet<u16>,
    tasks: JoinSet<()>,
}

impl Health {
    pub(crate) fn new(options: &NetworkOptions) -> Self {
        let facts = Facts { eligible: true, ..Facts::default() };
        Self {
            node: options.node_name.clone(),
            node_port: options.health_port,
            facts: Arc::new(parking_lot::RwLock::new(facts)),
            asked: HashMap::new(),
            listening: HashMap::new(),
            refused: BTreeSet::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Takes in a Service with its slices, or that it is gone.
    pub(crate) fn service(
        &mut self,
        key: &ObjectKey,
        known: Option<(&Service, &[Arc<EndpointSlice>])>,
    ) {
        let wanted = known.and_then(|(service, slices)| {
            let port = asks(service, self.node_port)?;
            let asked = match port == self.node_port {
                true => Asked::Node,
                false => Asked::Service(key.clone(), ready_here(slices, &self.node)),
            };
            Some((port, asked))
        });
        let port = wanted.as_ref().map(|(port, _)| *port);
        let before = match port {
            Some(port) => self.asked.insert(key.clone(), port),
            None => self.asked.remove(key),
        };
        let mut facts = self.facts.write();
        if let Some(before) = before.filter(|before| Some(*before) != port)
            && !self.asked.values().any(|port| *port == before)
        {
            facts.ports.remove(&before);
        }
        if let Some((port, asked)) = wanted {
            facts.ports.insert(port, asked);
        }
    }

    /// Takes in the node's object.
    pub(crate) fn node(&mut self, node: Option<&Node>) {
        let spec = node.and_then(|node| node.spec.as_ref());
        let mut taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
        let leaving = node.is_some_and(|node| node.metadata.deletion_timestamp.is_some());
        let removed = taints.any(|taint| taint.key == REMOVAL_TAINT);
        self.facts.write().eligible = node.is_some() && !leaving && !removed;
    }

    /// The table is right for all that was taken in, or is not: answers change, ports open and
    /// close.
    pub(crate) fn programmed(&mut self, healthy: bool) {
        let wanted: BTreeSet<u16> = {
            let mut facts = self.facts.write();
            facts.healthy = healthy;
            if healthy {
                facts.updated = Some(Timestamp::now());
            }
            facts.ports.keys().copied().collect()
        };
        self.listening.retain(|port, task| {
            let kept = wanted.contains(port);
            if !kept {
                task.abort();
            }
            kept
        });
        self.refused.retain(|port| wanted.contains(port));
        for port in wanted {
            if self.listening.contains_key(&port) {
                continue;
            }
            match listen(port) {
                Ok(listener) => {
                    self.refused.remove(&port);
                    let task = self.tasks.spawn(serve(listener, port, self.facts.clone()));
                    self.listening.insert(port, task);
                }
                Err(error) => {
                    if self.refused.insert(port) {
                        tracing::warn!(%error, port, "cannot answer health checks of load balancers");
                    }
                }
            }
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// Closes all ports.
    pub(crate) async fn stop(&mut self) {
        self.listening.clear();
        self.tasks.shutdown().await;
    }
}

/// The port at which a Service wants to be asked about, `node_port` if the node's will do.
fn asks(service: &Service, node_port: u16) -> Option<u16> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() != Some("LoadBalancer") || !is_served(service) {
        return None;
    }
    let own = spec.health_check_node_port.and_then(|port| u16::try_from(port).ok());
    match spec.external_traffic_policy.as_deref() {
        Some("Local") => own.filter(|port| *port > 0),
        _ => Some(node_port).filter(|port| *port > 0),
    }
}

/// Both families where there is IPv6.
fn listen(port: u16) -> io::Result<TcpListener> {
    let open = |socket: TcpSocket, address: SocketAddr| {
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let both =
        TcpSocket::new_v6().and_then(|socket| open(socket, (Ipv6Addr::UNSPECIFIED, port).into()));
    match both {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            open(TcpSocket::new_v4()?, (Ipv4Addr::UNSPECIFIED, port).into())
        }
        outcome => outcome,
    }
}

async fn serve(listener: TcpListener, port: u16, facts: Arc<parking_lot::RwLock<Facts>>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let facts = facts.clone();
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            let _permit = permit;
            let answer = service_fn(move |request: Request<Incoming>| {
                let response = answer(&facts.read(), port, request.uri().path());
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .keep_alive(false)
                .max_buf_size(8192)
                .serve_connection(TokioIo::new(stream), answer);
            // Whoever hangs up early needs no answer.
            let _ = tokio::time::timeout(PATIENCE * 2, connection).await;
        });
    }
}

/// As kube-proxy answers, which load balancers read.
fn answer(facts: &Facts, port: u16, path: &str) -> Response<Full<Bytes>> {
    let text = |status, text: String, weight: Option<usize>| {
        let mut response = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        if let Some(weight) = weight {
            response = response.header("x-load-balancing-endpoint-weight", weight);
        }
        response.body(Full::new(Bytes::from(text))).unwrap_or_default()
    };
    let status = |good| if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match facts.ports.get(&port) {
        Some(Asked::Service(key, count)) => {
            let body = format!(
                "{{\n\t\"service\": {{\n\t\t\"namespace\": {:?},\n\t\t\"name\": {:?}\n\t}},\n\t\
                 \"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": {}\n}}",
                key.namespace(),
                key.name,
                facts.healthy
            );
            text(status(*count > 0 && facts.healthy), body, Some(*count))
        }
        Some(Asked::Node) if path == "/healthz" || path == "/livez" => {
            let now = Timestamp::now();
            let updated = facts.updated.unwrap_or(Timestamp::UNIX_EPOCH);
            let eligible = facts.eligible;
            let good = facts.healthy && (eligible || path == "/livez");
            let body = format!(
                "{{\"lastUpdated\": \"{updated}\",\"currentTime\": \"{now}\", \"nodeEligible\": {eligible}}}"
            );
            text(status(good), body, None)
        }
        _ => text(StatusCode::NOT_FOUND, "{}".to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: serde_json::Value) -> Service {
        let object = serde_json::json!({"metadata": {"name": "web"}, "spec": spec});
        serde_json::from_value(object).expect("service")
    }

    #[test]
    fn only_balanced_services_ask() {
        let asked = |more: serde_json::Value| {
            let mut spec = serde_json::json!({"clusterIP": "10.96.0.9", "type": "LoadBalancer"});
            spec.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
            asks(&service(spec), 10256)
        };
        assert_eq!(asked(serde_json::json!({})), Some(10256));
        assert_eq!(asked(serde_json::json!({"type": "NodePort"})), None);
        let local =
            serde_json::json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 30999});
        assert_eq!(asked(local), Some(30999));
        assert_eq!(asked(serde_json::json!({"externalTrafficPolicy": "Local"})), None);
    }

    #[test]
    fn answers_are_those_of_kube_proxy() {
        let key = ObjectKey::namespaced("shop", "web");
        let mut facts = Facts {
            ports: [(30999, Asked::Service(key.clone(), 2)), (10256, Asked::Node)].into(),
            updated: None,
            healthy: true,
            eligible: false,
        };
        let status = |facts: &Facts, port, path| answer(facts, port, path).status().as_u16();
        let response = answer(&facts, 30999, "/healthz");
        assert_eq!(response.headers()["x-load-balancing-endpoint-weight"], "2");
        assert_eq!(response.status(), 200);
        assert_eq!(status(&facts, 10256, "/healthz"), 503);
        assert_eq!(status(&facts, 10256, "/livez"), 200);
        assert_eq!(status(&facts, 10256, "/else"), 404);
        facts.ports.insert(30999, Asked::Service(key, 0));
        assert_eq!(status(&facts, 30999, "/healthz"), 503);
    }
}
