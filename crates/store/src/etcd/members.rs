//! The members of the etcd cluster: connections, which one is asked, and what a
//! failed call means. Refuses to know what is asked.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};
use tonic::{
    Code, Request, Status, Streaming,
    metadata::MetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{
    options::EtcdOptions,
    proto::{
        CompactionRequest, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
        WatchCreateRequest, WatchRequest, WatchResponse, count, kv_client::KvClient,
        watch_client::WatchClient, watch_request,
    },
};
use crate::OpenError;

/// How long one member may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// How long one member may take to answer a read before another is asked.
const READ: Duration = Duration::from_secs(2);
/// How long a write may take: etcd itself gives up after about seven seconds.
const WRITE: Duration = Duration::from_secs(8);
/// Pause before the members are asked again after all of them have failed.
const PAUSE: Duration = Duration::from_millis(50);
/// The largest answer that is taken. Pages of lists and pieces of watches stay
/// far below it.
const MAX_MESSAGE: usize = 1 << 30;

/// Why a call failed.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// etcd said no: nothing was done, and asking again will not help.
    Refused(String),
    /// etcd has too much to do: nothing was done.
    Busy,
    /// The history that was asked for is compacted.
    Compacted,
    /// The database quota is used up. A write may have been done all the same.
    NoSpace,
    /// No answer, or one that leaves open whether something was done.
    Unclear(String),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let message = status.message();
        match status.code() {
            Code::OutOfRange if message.contains("has been compacted") => Self::Compacted,
            Code::ResourceExhausted if message.contains("space exceeded") => Self::NoSpace,
            Code::ResourceExhausted if message.contains("too many requests") => Self::Busy,
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated => Self::Refused(message.to_owned()),
            _ => Self::Unclear(describe(&status)),
        }
    }
}

/// A transport error hides its reason in its sources.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    if text.is_empty() { status.code().description().to_owned() } else { text }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(why) | Self::Unclear(why) => f.write_str(why),
            Self::Busy => f.write_str("etcd has too many requests"),
            Self::Compacted => f.write_str("the revision is compacted"),
            Self::NoSpace => f.write_str("etcd's database quota is used up"),
        }
    }
}

/// Connections to all members; made when they are first used.
pub(super) struct Members {
    channels: Vec<Channel>,
    /// The member that answered last.
    current: AtomicUsize,
}

impl Members {
    pub(super) fn new(options: &EtcdOptions) -> Result<Self, OpenError> {
        let channels: Result<Vec<_>, _> =
            options.endpoints.iter().map(|endpoint| channel(endpoint, options)).collect();
        let channels = channels?;
        if channels.is_empty() {
            return Err(OpenError::Endpoint {
                endpoint: String::new(),
                message: "no endpoint is given".into(),
            });
        }
        Ok(Self { channels, current: AtomicUsize::new(0) })
    }

    fn current(&self) -> (usize, Channel) {
        let index = self.current.load(Ordering::Relaxed) % self.channels.len();
        (index, self.channels[index].clone())
    }

    /// Asks another member from now on, unless somebody has seen to that.
    fn leave(&self, index: usize) {
        let next = (index + 1) % self.channels.len();
        let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn judge<T>(
        &self,
        index: usize,
        answer: Result<Result<tonic::Response<T>, Status>, tokio::time::error::Elapsed>,
    ) -> Result<T, Failure> {
        let failure = match answer {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) => status.into(),
            Err(_) => Failure::Unclear("no answer in time".to_owned()),
        };
        if matches!(failure, Failure::Unclear(_)) {
            self.leave(index);
        }
        Err(failure)
    }

    /// Reads; asks one member after the other until `deadline`.
    pub(super) async fn range(
        &self,
        request: RangeRequest,
        deadline: Instant,
    ) -> Result<RangeResponse, Failure> {
        for attempt in 1.. {
            let (index, channel) = self.current();
            let mut client = kv(channel);
            let answer = timeout(READ, client.range(request.clone())).await;
            match self.judge(index, answer) {
                Err(Failure::Unclear(_) | Failure::Busy) if Instant::now() < deadline => {
                    if attempt % self.channels.len() == 0 {
                        sleep(PAUSE).await;
                    }
                }
                result => return result,
            }
        }
        Err(Failure::Unclear(String::new()))
    }

    /// etcd's current revision: that of every write acknowledged to anybody.
    pub(super) async fn revision(&self, deadline: Instant) -> Result<i64, Failure> {
        let nothing = count(Bytes::from_static(b"\0"), Bytes::new());
        Ok(self.range(nothing, deadline).await?.revision())
    }

    /// Carries out a transaction once, on whichever member is in use.
    pub(super) async fn transact(&self, request: TxnRequest) -> Result<TxnResponse, Failure> {
        let (index, channel) = self.current();
        let mut client = kv(channel);
        self.judge(index, timeout(WRITE, client.txn(request)).await)
    }

    /// Lets etcd forget what is older than `revision`.
    pub(super) async fn compact(&self, revision: i64) -> Result<(), Failure> {
        let (index, channel) = self.current();
        let mut client = kv(channel);
        let answer = timeout(WRITE, client.compact(CompactionRequest { revision })).await;
        self.judge(index, answer).map(drop)
    }

    /// Watches all keys from `start` on at the `turn`-th member. The watch ends
    /// when the member loses its leader. The sender keeps it open.
    pub(super) async fn watch(
        &self,
        turn: usize,
        start: i64,
    ) -> Result<(tokio::sync::mpsc::Sender<WatchRequest>, Streaming<WatchResponse>), Failure> {
        let channel = self.channels[turn % self.channels.len()].clone();
        let create = WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            start_revision: start,
            fragment: true,
        };
        let create = watch_request::RequestUnion::CreateRequest(create);
        let (sender, requests) = tokio::sync::mpsc::channel(1);
        let opened = sender.try_send(WatchRequest { request_union: Some(create) });
        debug_assert!(opened.is_ok(), "a new channel has room");
        let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(requests));
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let mut client = WatchClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        match timeout(READ + CONNECT, client.watch(request)).await {
            Ok(Ok(response)) => Ok((sender, response.into_inner())),
            Ok(Err(status)) => Err(status.into()),
            Err(_) => Err(Failure::Unclear("no answer in time".to_owned())),
        }
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

fn channel(endpoint: &str, options: &EtcdOptions) -> Result<Channel, OpenError> {
    let refuse = |message: String| OpenError::Endpoint { endpoint: endpoint.to_owned(), message };
    let secure = endpoint.starts_with("https://");
    if !secure && !endpoint.starts_with("http://") {
        return Err(refuse("it must begin with https:// or http://".into()));
    }
    let mut target = Endpoint::from_shared(endpoint.to_owned())
        .map_err(|error| refuse(error.to_string()))?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        // Pings find out about members that went without a word. etcd allows no
        // more than one in five seconds, and none without a call under way.
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20);
    if secure {
        let Some(tls) = &options.tls else {
            return Err(refuse("https needs the CA certificate of etcd".into()));
        };
        let mut config =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.authority));
        if let Some((certificate, key)) = &tls.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        target = target.tls_config(config).map_err(|error| {
            refuse(format!("the certificates for it cannot be used: {}", sources(&error)))
        })?;
    }
    Ok(target.connect_lazy())
}

fn sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
