//! What the network benches ask of the API: many objects at a time, one change and its echo in the
//! kernel.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::Value;
use testkit::Cluster;

use crate::endpoint::{Endpoint, request};
use crate::figures::{TIMEOUT, kubeconfig};
use crate::inside;
use crate::load::{self, Load};
use crate::wire;

/// Connections on which objects are made.
const CONNECTIONS: usize = 16;

/// Creates objects `first..last`, whose paths and bodies `make` gives.
pub(crate) fn create<F>(cluster: &Cluster, first: u64, last: u64, make: F) -> anyhow::Result<()>
where
    F: Fn(u64) -> (String, Value) + Clone + Send + 'static,
{
    let path = kubeconfig(cluster);
    inside::run(cluster, move || async move {
        let endpoint = Endpoint::from_kubeconfig(&path)?;
        let requests = last.saturating_sub(first);
        let load = Load { connections: CONNECTIONS, duration: TIMEOUT * 4, requests };
        let made = load::run(&endpoint, load, move |number| {
            let (path, body) = make(first + number);
            wire::request("POST", &path, &body.to_string())
        });
        let made = made.await?.requests();
        anyhow::ensure!(made == requests, "only {made} of {requests} objects were made");
        Ok(())
    })
}

/// Sends one request and returns the answer.
pub(crate) fn send(cluster: &Cluster, request: Request<Full<Bytes>>) -> anyhow::Result<Value> {
    let path = kubeconfig(cluster);
    inside::run(cluster, move || async move {
        let mut connection = Endpoint::from_kubeconfig(&path)?.connect().await?;
        Ok(serde_json::from_slice(&connection.exchange(request).await?)?)
    })
}

/// A merge patch.
pub(crate) fn patch(path: &str, body: &Value) -> Request<Full<Bytes>> {
    let mut patch = request(Method::PATCH, path, body.to_string());
    let media = http::HeaderValue::from_static("application/merge-patch+json");
    patch.headers_mut().insert(http::header::CONTENT_TYPE, media);
    patch
}

/// Rules that have not changed for so long are taken to be finished.
const REST: Duration = Duration::from_secs(1);

/// How long each request took until the first change of the node's nftables after it was sent.
pub(crate) fn until_programmed(
    cluster: &Cluster,
    requests: Vec<Request<Full<Bytes>>>,
) -> anyhow::Result<Vec<Duration>> {
    let changes = Changes::listen(cluster)?;
    let path = kubeconfig(cluster);
    inside::run(cluster, move || measure(path, requests, changes))
}

async fn measure(
    kubeconfig: PathBuf,
    requests: Vec<Request<Full<Bytes>>>,
    changes: Changes,
) -> anyhow::Result<Vec<Duration>> {
    let mut connection = Endpoint::from_kubeconfig(&kubeconfig)?.connect().await?;
    let mut times = Vec::new();
    for request in requests {
        // What came before has come to rest.
        changes.rest(Duration::from_millis(300))?;
        let begin = Instant::now();
        connection.exchange(request).await?;
        let changed = changes.0.recv_timeout(Duration::from_secs(10));
        times.push(changed.context("the kernel's rules did not change")? - begin);
    }
    Ok(times)
}

/// Waits until the node's nftables change no more.
pub(crate) fn rest(cluster: &Cluster) -> anyhow::Result<()> {
    Changes::listen(cluster)?.rest(REST).map(drop)
}

/// What the kernel tells of changes of nftables on the first node: when each came.
pub(crate) struct Changes(mpsc::Receiver<Instant>);

/// `NFNLGRP_NFTABLES`, as a bit.
const NFTABLES: u32 = 1 << 6;

impl Changes {
    /// Begins to listen. nft's own monitor reads all rules first, which takes longer than anything
    /// that is measured here.
    pub(crate) fn listen(cluster: &Cluster) -> anyhow::Result<Self> {
        let open = || -> nix::Result<OwnedFd> {
            let (kind, protocol) = (SockType::Raw, SockProtocol::NetlinkNetFilter);
            let fd = socket(AddressFamily::Netlink, kind, SockFlag::SOCK_CLOEXEC, protocol)?;
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, NFTABLES))?;
            setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
            Ok(fd)
        };
        let opened = cluster.namespace().run(open).join();
        let fd = opened.map_err(|_| anyhow::anyhow!("the listener panicked"))?.context("listen")?;
        let (tell, changes) = mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let gone = match recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    // More than the queue holds is as good as a change.
                    Ok(_) | Err(Errno::ENOBUFS) => match tell.try_send(Instant::now()) {
                        Ok(()) | Err(mpsc::TrySendError::Full(_)) => false,
                        Err(mpsc::TrySendError::Disconnected(_)) => true,
                    },
                    // Who asks no more is noticed at the next change, or never.
                    Err(Errno::EAGAIN | Errno::EINTR) => false,
                    Err(_) => true,
                };
                if gone {
                    break;
                }
            }
        });
        Ok(Self(changes))
    }

    /// Waits until nothing has changed for `quiet`; when the last change was, if there was one.
    pub(crate) fn rest(&self, quiet: Duration) -> anyhow::Result<Option<Instant>> {
        let limit = Instant::now() + TIMEOUT;
        let mut last = None;
        while let Ok(change) = self.0.recv_timeout(quiet) {
            anyhow::ensure!(change < limit, "the kernel's rules do not come to rest");
            last = Some(change);
        }
        Ok(last)
    }

    /// As [`Changes::rest`], for what takes longest.
    pub(crate) fn last(&self) -> anyhow::Result<Option<Instant>> {
        self.rest(REST)
    }
}
