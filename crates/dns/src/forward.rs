//! Asking the node's resolvers: the packet as it came, under a new identifier, from a new port.
//!
//! Bounded in number and time. Knows nothing of the cluster's names.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
};

use crate::{
    cache::Cache,
    routes::Routes,
    upstreams::Upstreams,
    wire::{self, Asking, Transport},
};

/// Questions under way at once; more are refused.
const AT_ONCE: usize = 512;
/// The same question under way at once; more mean that somebody sends our questions back to us.
const SAME_AT_ONCE: usize = 32;
/// How long one resolver may take. Resolvers in programs wait 5 s for all of ours together.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Largest datagram that is received, in bytes.
const DATAGRAM_BYTES: usize = 8192;

/// Forwards questions.
pub(crate) struct Forwarder {
    upstreams: Upstreams,
    routes: RwLock<Routes>,
    cache: Cache,
    permits: Semaphore,
    under_way: Mutex<HashMap<(String, RecordType), usize>>,
    /// The resolver that answered last.
    preferred: AtomicUsize,
}

/// A question counted as under way until dropped.
struct UnderWay<'a> {
    forwarder: &'a Forwarder,
    key: (String, RecordType),
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut counts = self.forwarder.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

impl Forwarder {
    pub(crate) fn new(upstreams: Upstreams) -> Self {
        Self {
            upstreams,
            routes: RwLock::default(),
            cache: Cache::default(),
            permits: Semaphore::new(AT_ONCE),
            under_way: Mutex::default(),
            preferred: AtomicUsize::new(0),
        }
    }

    /// Asks these from now on. What others have said before is forgotten.
    pub(crate) fn set_routes(&self, routes: Routes) {
        let mut current = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        if *current != routes {
            *current = routes;
            self.cache.clear();
        }
    }

    /// The domains in which the node's own resolver searches.
    pub(crate) fn search_path(&self) -> Arc<[Name]> {
        self.upstreams.current().search
    }

    /// A remembered answer, as a packet.
    pub(crate) fn remembered(&self, asking: &Asking) -> Option<Vec<u8>> {
        if !cacheable(asking) {
            return None;
        }
        Some(asking.repeat(&self.cache.get(&asking.query, Instant::now())?))
    }

    /// The answer to `packet`, which asks `asking`. Always an answer, if only a failure.
    pub(crate) async fn forward(&self, asking: &Asking, packet: &[u8]) -> Vec<u8> {
        match self.ask(asking, packet).await {
            Some(response) => response,
            None => asking.failure(ResponseCode::ServFail),
        }
    }

    /// What others say of `name`; `None` if nobody says anything.
    pub(crate) async fn resolve(&self, name: Name, kind: RecordType) -> Option<Message> {
        let mut asking = Asking::own(name, kind);
        if let Some(message) = self.cache.get(&asking.query, Instant::now()) {
            return Some(message);
        }
        let packet = asking.packet();
        let mut response = self.ask(&asking, &packet).await?;
        if wire::truncated(&response) {
            asking.transport = Transport::Tcp;
            response = self.ask(&asking, &packet).await?;
        }
        Message::from_vec(&response).ok()
    }

    async fn ask(&self, asking: &Asking, packet: &[u8]) -> Option<Vec<u8>> {
        let _permit = self.permits.try_acquire().ok()?;
        let _counted = self.count(asking)?;
        let routed =
            self.routes.read().unwrap_or_else(PoisonError::into_inner).of(asking.query.name());
        let resolvers = routed.unwrap_or_else(|| self.upstreams.current().resolvers);
        let first = self.preferred.load(Ordering::Relaxed);
        for turn in 0..resolvers.len() {
            let index = (first + turn) % resolvers.len();
            let asked = exchange(resolvers[index], packet, asking.transport);
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(mut response)) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    if cacheable(asking)
                        && let Ok(message) = Message::from_vec(&response)
                    {
                        self.cache.put(&asking.query, message, Instant::now());
                    }
                    wire::set_id(&mut response, asking.id);
                    return Some(response);
                }
                Ok(Err(error)) => {
                    tracing::debug!(resolver = %resolvers[index], %error, "resolver failed");
                }
                Err(_) => tracing::debug!(resolver = %resolvers[index], "resolver is silent"),
            }
        }
        None
    }

    fn count(&self, asking: &Asking) -> Option<UnderWay<'_>> {
        let query = &asking.query;
        let key = (query.name().to_ascii().to_ascii_lowercase(), query.query_type());
        let mut counts = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_default();
        if *count >= SAME_AT_ONCE {
            tracing::debug!(name = key.0, "the same question too often at once: a loop?");
            return None;
        }
        *count += 1;
        Some(UnderWay { forwarder: self, key })
    }
}

fn cacheable(asking: &Asking) -> bool {
    !asking.wants_dnssec() && !asking.checking_disabled
}

/// Asks one resolver and waits for the answer to exactly this question.
async fn exchange(
    resolver: SocketAddr,
    packet: &[u8],
    transport: Transport,
) -> io::Result<Vec<u8>> {
    let id = rand::random();
    let mut request = packet.to_vec();
    wire::set_id(&mut request, id);
    match transport {
        Transport::Udp => {
            let any: SocketAddr = match resolver {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any).await?;
            socket.connect(resolver).await?;
            socket.send(&request).await?;
            let mut buffer = vec![0; DATAGRAM_BYTES];
            loop {
                let length = socket.recv(&mut buffer).await?;
                if wire::answers(&request, &buffer[..length], id) {
                    buffer.truncate(length);
                    return Ok(buffer);
                }
            }
        }
        Transport::Tcp => {
            let mut stream = TcpStream::connect(resolver).await?;
            let length = u16::try_from(request.len()).map_err(io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes(), request.as_slice()].concat()).await?;
            let mut response = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut response).await?;
            match wire::answers(&request, &response, id) {
                true => Ok(response),
                false => Err(io::Error::other("answers another question")),
            }
        }
    }
}
