//! The server: sockets in, answers out, and the catalog kept up to date beside it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use client::{Caches, Select};
use futures::FutureExt;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Pod, Service},
    discovery::v1::EndpointSlice,
};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    DnsOptions, Metrics,
    answer::Zone,
    datagrams::{Received, Replies},
    desk::{Desk, Next, Waiting},
    forward::Forwarder,
    memo::Memo,
    objects::{NAMESPACE, register},
    routes::Routes,
    upstreams::Upstreams,
    wire::Transport,
};

/// Name of the ConfigMap with stub domains and upstream name servers.
const CONFIG: &str = "kube-dns";
/// TCP connections at once; more wait to be accepted.
const CONNECTIONS: usize = 128;
/// How long a TCP connection may be silent, or slow with one question.
const IDLE: Duration = Duration::from_secs(10);
/// Questions at once that wait for somebody else.
const WAITING: usize = 1024;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// Why cluster DNS does not run.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The domain is none.
    #[error("{0:?} is no domain")]
    Domain(String),
    /// An address could not be listened on.
    #[error("listen for DNS on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// One of the server's tasks panicked.
    #[error("a task of the DNS server failed")]
    Task(#[source] tokio::task::JoinError),
}

/// Cluster DNS on one node.
pub struct Dns {
    options: DnsOptions,
    caches: Caches,
    metrics: Metrics,
}

impl Dns {
    /// A server that answers from `caches` and counts in `metrics`.
    pub fn new(options: DnsOptions, caches: Caches, metrics: Metrics) -> Self {
        Self { options, caches, metrics }
    }

    /// Serves until shutdown. Registers itself in the API as `kube-system/kube-dns`.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), DnsError> {
        let Self { options, caches, metrics } = self;
        let zone =
            Zone::new(&options.domain, options.service_ips.clone(), options.own_networks.clone())
                .ok_or_else(|| DnsError::Domain(options.domain.clone()))?;
        let mut sockets = Vec::new();
        for address in &options.listen {
            let failed = |source| DnsError::Listen { address: *address, source };
            sockets.push((udp(*address).map_err(failed)?, tcp(*address).map_err(failed)?));
        }
        let ours: Vec<IpAddr> = options.listen.iter().map(SocketAddr::ip).collect();
        let mut not_upstream = ours.clone();
        not_upstream.extend(&options.service_ips);
        let not_ours = not_upstream.clone();
        let desk = Arc::new(Desk {
            zone,
            catalog: RwLock::default(),
            searchers: RwLock::default(),
            generation: AtomicU64::new(0),
            complete: AtomicBool::new(false),
            forwarder: Forwarder::new(Upstreams::new(options.resolv_conf.clone(), not_upstream)),
            allow: options.allow.clone(),
            ours,
            turn: AtomicUsize::new(0),
            metrics,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(desk.clone(), caches.clone()));
        tasks.spawn(follow_searchers(desk.clone(), caches.clone(), options.node_name.clone()));
        tasks.spawn(follow_routes(desk.clone(), caches.clone(), not_ours));
        tasks.spawn(register_until_done(caches.client(), options));
        for (udp, tcp) in sockets {
            tasks.spawn(serve_udp(desk.clone(), udp));
            tasks.spawn(serve_tcp(desk.clone(), tcp));
        }
        let outcome = loop {
            tokio::select! {
                () = shutdown.cancelled() => break Ok(()),
                ended = tasks.join_next() => if let Some(Err(error)) = ended {
                    break Err(DnsError::Task(error));
                },
            }
        };
        tasks.shutdown().await;
        outcome
    }
}

/// Registers until it works once.
async fn register_until_done(client: kube::Client, options: DnsOptions) {
    let mut wait = FIRST_RETRY;
    while let Err(error) = register(client.clone(), &options).await {
        match wait == LAST_RETRY {
            true => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot register cluster DNS"
            ),
            false => tracing::debug!(
                error = &error as &dyn std::error::Error,
                "cannot register cluster DNS yet"
            ),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_RETRY);
    }
}

/// Keeps the catalog up to date.
async fn follow(desk: Arc<Desk>, caches: Caches) {
    let namespaces = caches.cache::<Namespace>();
    let services = caches.cache::<Service>();
    let slices = caches.cache::<EndpointSlice>();
    tokio::join!(namespaces.ready(), services.ready(), slices.ready());
    let mut namespaces = namespaces.subscribe();
    let mut services = services.subscribe();
    let mut slices = slices.subscribe();
    loop {
        {
            let mut catalog = desk.change();
            while let Some(Some(change)) = namespaces.next().now_or_never() {
                catalog.take_namespace(change);
            }
            while let Some(Some(change)) = services.next().now_or_never() {
                catalog.take_service(change);
            }
            while let Some(Some(change)) = slices.next().now_or_never() {
                catalog.take_slice(change);
            }
        }
        desk.complete.store(true, Ordering::Release);
        let write = || desk.change();
        tokio::select! {
            change = namespaces.next() => match change {
                Some(change) => write().take_namespace(change),
                None => return,
            },
            change = services.next() => match change {
                Some(change) => write().take_service(change),
                None => return,
            },
            change = slices.next() => match change {
                Some(change) => write().take_slice(change),
                None => return,
            },
        }
    }
}

/// Keeps in mind which pods of the node search where.
async fn follow_searchers(desk: Arc<Desk>, caches: Caches, node: String) {
    let own = Select::all().fields(format!("spec.nodeName={node}"));
    let mut pods = caches.selected::<Pod>(own).subscribe();
    while let Some(change) = pods.next().await {
        desk.searchers.write().unwrap_or_else(PoisonError::into_inner).take(&change);
    }
}

/// Asks whom the administrator names.
async fn follow_routes(desk: Arc<Desk>, caches: Caches, ours: Vec<IpAddr>) {
    let one = Select::all().namespace(NAMESPACE).fields(format!("metadata.name={CONFIG}"));
    let mut maps = caches.selected::<ConfigMap>(one).subscribe();
    while let Some(change) = maps.next().await {
        let data = change.after.as_deref().and_then(|map| map.data.clone()).unwrap_or_default();
        let (routes, problems) = Routes::read(&data, &ours);
        for problem in problems {
            tracing::warn!("ConfigMap {NAMESPACE}/{CONFIG}: {problem}");
        }
        desk.forwarder.set_routes(routes);
    }
}

async fn serve_udp(desk: Arc<Desk>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let at_once = Arc::new(Semaphore::new(WAITING));
    let mut waiting = JoinSet::new();
    let (mut received, mut replies, mut memo) =
        (Received::new(), Replies::default(), Memo::default());
    loop {
        while waiting.try_join_next().is_some() {}
        if let Err(error) = received.receive(&socket).await {
            tracing::debug!(%error, "cannot receive questions");
            tokio::time::sleep(FIRST_RETRY).await;
            continue;
        }
        for (packet, peer) in received.iter().filter(|(_, peer)| desk.allowed(peer.ip())) {
            let Some(question) = answer_at_once(&desk, &mut memo, packet, peer, &mut replies)
            else {
                continue;
            };
            let Ok(permit) = at_once.clone().try_acquire_owned() else { continue };
            let (desk, socket, packet) = (desk.clone(), socket.clone(), packet.to_vec());
            waiting.spawn(async move {
                let reply = desk.finish(*question, &packet).await;
                let _ = socket.send_to(&reply, peer).await;
                drop(permit);
            });
        }
        replies.send(&socket).await;
    }
}

/// Adds the reply to a question that needs nobody else; what must be waited for otherwise.
fn answer_at_once(
    desk: &Desk,
    memo: &mut Memo,
    packet: &[u8],
    peer: SocketAddr,
    replies: &mut Replies,
) -> Option<Box<Waiting>> {
    let generation = desk.generation.load(Ordering::Acquire);
    let remembered = replies.add(peer, |out| {
        let start = out.len();
        let found = memo.reply(packet, generation, out);
        if found {
            desk.metrics.asked(Transport::Udp);
            desk.metrics.answered(&out[start..]);
        }
        found
    });
    if remembered {
        return None;
    }
    match desk.decide(packet, peer.ip(), Transport::Udp) {
        Next::Nothing => None,
        Next::Reply { reply, turns } => {
            memo.keep(packet, &reply, turns);
            replies.add(peer, |out| {
                out.extend_from_slice(&reply);
                true
            });
            None
        }
        Next::Ask(question) => Some(question),
    }
}

async fn serve_tcp(desk: Arc<Desk>, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                // Out of descriptors, most likely.
                tokio::time::sleep(FIRST_RETRY).await;
                continue;
            }
        };
        if !desk.allowed(peer.ip()) {
            continue;
        }
        let desk = desk.clone();
        connections.spawn(async move {
            if let Err(error) = serve_connection(&desk, stream, peer.ip()).await {
                tracing::trace!(%error, %peer, "connection ended");
            }
            drop(permit);
        });
    }
}

/// Questions of one connection, one after the other.
async fn serve_connection(desk: &Desk, mut stream: TcpStream, peer: IpAddr) -> io::Result<()> {
    loop {
        let question = async {
            let mut packet = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut packet).await?;
            Ok::<_, io::Error>(packet)
        };
        let packet = tokio::time::timeout(IDLE, question).await??;
        let reply = match desk.decide(&packet, peer, Transport::Tcp) {
            Next::Nothing => return Ok(()),
            Next::Reply { reply, .. } => reply,
            Next::Ask(question) => desk.finish(*question, &packet).await,
        };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), reply.as_slice()].concat();
        tokio::time::timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let fd = open(address, SockType::Datagram)?;
    UdpSocket::from_std(fd.into())
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let fd = open(address, SockType::Stream)?;
    listen(&fd, Backlog::MAXCONN)?;
    TcpListener::from_std(fd.into())
}

/// A bound socket. The address need not exist yet: the bridge may be made later.
fn open(address: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, kind, flags, None)?;
    if kind == SockType::Stream {
        // Connections of a former process may linger.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    setsockopt(&fd, sockopt::IpFreebind, &true)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(address))?;
    Ok(fd)
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
