//! The server: sockets in, answers out, and the catalog kept up to date beside it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use client::Caches;
use futures::FutureExt;
use hickory_proto::op::ResponseCode;
use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
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
    DnsOptions,
    answer::{Answer, Zone},
    catalog::Catalog,
    forward::Forwarder,
    objects::register,
    upstreams::Upstreams,
    wire::{Asking, Parsed, Transport, parse},
};

/// Largest question in a datagram, in bytes.
const QUESTION_BYTES: usize = 4096;
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
}

/// What all of the server's tasks share.
struct Shared {
    zone: Zone,
    catalog: RwLock<Catalog>,
    /// Whether the catalog is complete; until then, nothing may be said not to exist.
    complete: AtomicBool,
    forwarder: Forwarder,
    allow: Vec<IpNet>,
    ours: Vec<IpAddr>,
    turn: AtomicUsize,
    waiting: Arc<Semaphore>,
}

/// What becomes of a packet.
enum Next {
    Reply(Vec<u8>),
    Nothing,
    /// Somebody else must be asked.
    Forward(Asking),
    /// The answer goes on outside.
    Follow(Asking, Answer),
}

impl Dns {
    /// A server that answers from `caches`.
    pub fn new(options: DnsOptions, caches: Caches) -> Self {
        Self { options, caches }
    }

    /// Serves until shutdown. Registers itself in the API as `kube-system/kube-dns`.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), DnsError> {
        let Self { options, caches } = self;
        let zone = Zone::new(&options.domain, options.service_ip, options.own_networks.clone())
            .ok_or_else(|| DnsError::Domain(options.domain.clone()))?;
        let mut sockets = Vec::new();
        for address in &options.listen {
            let failed = |source| DnsError::Listen { address: *address, source };
            sockets.push((udp(*address).map_err(failed)?, tcp(*address).map_err(failed)?));
        }
        let ours: Vec<IpAddr> = options.listen.iter().map(SocketAddr::ip).collect();
        let mut not_upstream = ours.clone();
        not_upstream.push(options.service_ip.into());
        let shared = Arc::new(Shared {
            zone,
            catalog: RwLock::default(),
            complete: AtomicBool::new(false),
            forwarder: Forwarder::new(Upstreams::new(options.resolv_conf.clone(), not_upstream)),
            allow: options.allow.clone(),
            ours,
            turn: AtomicUsize::new(0),
            waiting: Arc::new(Semaphore::new(WAITING)),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(shared.clone(), caches.clone()));
        tasks.spawn(keep_registered(caches.client(), options));
        for (udp, tcp) in sockets {
            tasks.spawn(serve_udp(shared.clone(), udp));
            tasks.spawn(serve_tcp(shared.clone(), tcp));
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
async fn keep_registered(client: kube::Client, options: DnsOptions) {
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
async fn follow(shared: Arc<Shared>, caches: Caches) {
    let namespaces = caches.cache::<Namespace>();
    let services = caches.cache::<Service>();
    let slices = caches.cache::<EndpointSlice>();
    tokio::join!(namespaces.ready(), services.ready(), slices.ready());
    let mut namespaces = namespaces.subscribe();
    let mut services = services.subscribe();
    let mut slices = slices.subscribe();
    loop {
        {
            let mut catalog = shared.catalog.write().unwrap_or_else(PoisonError::into_inner);
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
        shared.complete.store(true, Ordering::Release);
        let write = || shared.catalog.write().unwrap_or_else(PoisonError::into_inner);
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

impl Shared {
    /// Whether a peer may ask. A machine's questions to itself come from the address they go to,
    /// those through the Service from any other of its addresses: masquerading chooses it.
    fn allowed(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        peer.is_loopback()
            || self.ours.contains(&peer)
            || self.allow.iter().any(|network| network.contains(&peer))
            || is_of_this_machine(peer)
    }

    fn decide(&self, packet: &[u8], transport: Transport) -> Next {
        let asking = match parse(packet, transport) {
            Parsed::Asking(asking) => asking,
            Parsed::Reply(reply) => return Next::Reply(reply),
            Parsed::Nothing => return Next::Nothing,
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let answer = {
            let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
            let query = &asking.query;
            self.zone.answer(&catalog, query.name(), query.query_type(), turn)
        };
        match answer {
            Some(_) if !self.complete.load(Ordering::Acquire) => {
                Next::Reply(asking.failure(ResponseCode::ServFail))
            }
            Some(answer) if answer.follow.is_some() => Next::Follow(asking, answer),
            Some(answer) => Next::Reply(asking.reply(answer)),
            None => match self.forwarder.remembered(&asking) {
                Some(reply) => Next::Reply(reply),
                None => Next::Forward(asking),
            },
        }
    }

    /// Finishes what could not be answered at once.
    async fn finish(&self, next: Next, packet: &[u8]) -> Option<Vec<u8>> {
        match next {
            Next::Reply(reply) => Some(reply),
            Next::Nothing => None,
            Next::Forward(asking) => Some(self.forwarder.forward(&asking, packet).await),
            Next::Follow(asking, mut answer) => {
                let target = answer.follow.take()?;
                match self.forwarder.resolve(target, asking.query.query_type()).await {
                    Some(records) => {
                        answer.answers.extend(records);
                        Some(asking.reply(answer))
                    }
                    None => Some(asking.failure(ResponseCode::ServFail)),
                }
            }
        }
    }
}

/// Whether an address belongs to this machine: only then can it be bound. The kernel drops packets
/// from outside that claim such a source.
fn is_of_this_machine(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

async fn serve_udp(shared: Arc<Shared>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut waiting = JoinSet::new();
    let mut buffer = vec![0; QUESTION_BYTES];
    loop {
        while waiting.try_join_next().is_some() {}
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "cannot receive a question");
                tokio::time::sleep(FIRST_RETRY).await;
                continue;
            }
        };
        if !shared.allowed(peer.ip()) {
            continue;
        }
        let packet = &buffer[..length];
        match shared.decide(packet, Transport::Udp) {
            Next::Nothing => {}
            Next::Reply(reply) => drop(socket.send_to(&reply, peer).await),
            next => {
                let Ok(permit) = shared.waiting.clone().try_acquire_owned() else { continue };
                let (shared, socket) = (shared.clone(), socket.clone());
                let packet = packet.to_vec();
                waiting.spawn(async move {
                    if let Some(reply) = shared.finish(next, &packet).await {
                        let _ = socket.send_to(&reply, peer).await;
                    }
                    drop(permit);
                });
            }
        }
    }
}

async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener) {
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
        if !shared.allowed(peer.ip()) {
            continue;
        }
        let shared = shared.clone();
        connections.spawn(async move {
            if let Err(error) = serve_connection(&shared, stream).await {
                tracing::trace!(%error, %peer, "connection ended");
            }
            drop(permit);
        });
    }
}

/// Questions of one connection, one after the other.
async fn serve_connection(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let question = async {
            let mut packet = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut packet).await?;
            Ok::<_, io::Error>(packet)
        };
        let packet = tokio::time::timeout(IDLE, question).await??;
        let next = shared.decide(&packet, Transport::Tcp);
        let Some(reply) = shared.finish(next, &packet).await else { return Ok(()) };
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
    if address.is_ipv4() {
        setsockopt(&fd, sockopt::IpFreebind, &true)?;
    }
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(address))?;
    Ok(fd)
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
