//! Connections of the website: a bounded number, one thread each, and the drain at SIGTERM.
//!
//! After SIGTERM the server goes on accepting: whoever still comes is served, and told to
//! close. Idle connections get a moment for a last request, then are closed; requests under
//! way are finished. When nobody comes any more, or two seconds after that moment, the socket
//! closes. It exits with 0 when nothing is left, or when its grace is over.

use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{self, ReadError, Reader, Response};
use crate::options::Options;
use crate::pages::Site;
use crate::{signals, tools};

/// How long a kept connection may stay idle.
const IDLE: Duration = Duration::from_secs(90);
/// How long a client may take to receive an answer.
const WRITE: Duration = Duration::from_secs(20);
/// How long after the drain newcomers are still served.
const NEWCOMERS: Duration = Duration::from_secs(2);
/// Stack of a connection's thread, in bytes.
const STACK: usize = 128 * 1024;

/// The website, listening.
pub(crate) struct Server {
    options: Options,
    listener: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    site: Site,
    connections: Mutex<Connections>,
    /// Signalled when a connection ends.
    ended: Condvar,
}

#[derive(Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, Connection>,
    /// Connections that become idle from now on are closed.
    closing: bool,
}

struct Connection {
    stream: Arc<TcpStream>,
    busy: bool,
}

impl Server {
    /// Listens on the port of `options`, IPv6 and IPv4 where there is IPv6.
    pub(crate) fn bind(options: Options) -> Result<Self, String> {
        let port = options.port;
        let listener = tools::listen(port)?;
        let shared = Shared {
            site: Site::new(options.clone()),
            connections: Mutex::default(),
            ended: Condvar::new(),
        };
        Ok(Self { options, listener, shared: Arc::new(shared) })
    }

    /// Where it listens.
    #[cfg(test)]
    fn address(&self) -> SocketAddr {
        let mut address = self.listener.local_addr().unwrap();
        address.set_ip(Ipv4Addr::LOCALHOST.into());
        address
    }

    /// Serves until SIGTERM, then drains.
    pub(crate) fn run(self) -> Result<u8, String> {
        let mut signal = signals::termination().map_err(|error| error.to_string())?;
        println!("website {} listening on port {}", self.options.version, self.options.port);
        self.run_until(move || {
            let _ = signal.read(&mut [0]);
        })
    }

    fn run_until(self, wait: impl FnOnce()) -> Result<u8, String> {
        let listener = self.listener.try_clone().map_err(|error| error.to_string())?;
        let (shared, limit) = (Arc::clone(&self.shared), self.options.max_connections);
        thread::Builder::new()
            .name("accept".to_owned())
            .spawn(move || accept(&listener, &shared, limit))
            .map_err(|error| error.to_string())?;
        wait();
        println!("stopping: finishing requests under way");
        let clean = self.drain();
        println!("{}", if clean { "stopped" } else { "stopped with requests under way" });
        Ok(0)
    }

    /// Whether everything was finished in time.
    fn drain(self) -> bool {
        let deadline = Instant::now() + self.options.grace;
        self.shared.site.drain();
        thread::sleep(self.options.drain.min(self.options.grace));
        self.shared.close_idle();
        // Those who still come are served, but not for ever.
        let quiet = self.shared.wait_empty(deadline.min(Instant::now() + NEWCOMERS));
        self.stop_accepting();
        let shared = Arc::clone(&self.shared);
        drop(self);
        shared.wait_empty(deadline) || quiet
    }

    /// Serves whoever is left in the kernel's queue; after that the socket may close.
    fn stop_accepting(&self) {
        if self.listener.set_nonblocking(true).is_err() {
            return;
        }
        // The other thread waits in a call that does not notice: give it something to accept.
        if let Ok(mut address) = self.listener.local_addr() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
            let _ = TcpStream::connect_timeout(&address, Duration::from_millis(100));
        }
        while let Ok((stream, peer)) = self.listener.accept() {
            self.shared.serve(stream, peer);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, limit: usize) {
    loop {
        shared.wait_below(limit);
        match listener.accept() {
            Ok((stream, peer)) => shared.serve(stream, peer),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // Out of descriptors, or the client went away: try again a little later.
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_below(&self, limit: usize) {
        let mut connections = self.lock();
        while connections.open.len() >= limit {
            connections = self.ended.wait(connections).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until no connection is open; whether that came before `deadline`.
    fn wait_empty(&self, deadline: Instant) -> bool {
        let mut connections = self.lock();
        while !connections.open.is_empty() {
            let Some(rest) = deadline.checked_duration_since(Instant::now()) else { return false };
            let waited = self.ended.wait_timeout(connections, rest);
            connections = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Closes idle connections, and those that become idle later. What a client has sent
    /// already can still be read, and is answered.
    fn close_idle(&self) {
        let mut connections = self.lock();
        connections.closing = true;
        for connection in connections.open.values().filter(|one| !one.busy) {
            let _ = connection.stream.shutdown(Shutdown::Read);
        }
    }

    /// Serves a connection in a thread of its own.
    fn serve(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let _ = stream.set_nonblocking(false);
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(IDLE));
        let _ = stream.set_write_timeout(Some(WRITE));
        let stream = Arc::new(stream);
        let id = {
            let mut connections = self.lock();
            connections.next += 1;
            let id = connections.next;
            // A new connection counts as busy: it was made to send a request.
            connections.open.insert(id, Connection { stream: Arc::clone(&stream), busy: true });
            id
        };
        let shared = Arc::clone(self);
        let spawned = thread::Builder::new().stack_size(STACK).spawn(move || {
            let _ended = Ended { shared: &shared, id };
            shared.converse(&stream, id, peer);
        });
        if spawned.is_err() {
            self.forget(id);
        }
    }

    fn converse(&self, stream: &TcpStream, id: u64, peer: SocketAddr) {
        let mut reader = Reader::new(Duplex(stream));
        loop {
            match reader.next(|| self.set_busy(id)) {
                Ok(request) => {
                    let response = self.site.answer(&request, peer);
                    let keep = request.keep_alive && !self.site.is_draining();
                    let head_only = request.method == "HEAD";
                    if http::write(stream, &response, head_only, keep).is_err() || !keep {
                        break;
                    }
                    if !reader.has_more() && !self.set_idle(id) {
                        break;
                    }
                }
                Err(ReadError::Bad(code)) => {
                    let response = Response::text(code, "the request is not acceptable\n");
                    let _ = http::write(stream, &response, false, false);
                    break;
                }
                Err(ReadError::Closed | ReadError::Broken) => break,
            }
        }
        finish(stream);
    }

    fn set_busy(&self, id: u64) {
        if let Some(connection) = self.lock().open.get_mut(&id) {
            connection.busy = true;
        }
    }

    /// Whether the connection may stay open.
    fn set_idle(&self, id: u64) -> bool {
        let mut connections = self.lock();
        let closing = connections.closing;
        if let Some(connection) = connections.open.get_mut(&id) {
            connection.busy = false;
        }
        !closing
    }

    fn forget(&self, id: u64) {
        self.lock().open.remove(&id);
        self.ended.notify_all();
    }
}

/// Says goodbye without losing the last answer: closing a socket with unread input would
/// make the kernel reset the connection.
fn finish(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
    let mut rest = Duplex(stream);
    let mut chunk = [0; 1024];
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline {
        match rest.read(&mut chunk) {
            Ok(count) if count > 0 => {}
            _ => return,
        }
    }
}

/// Takes a connection off the table when its thread ends, however it ends.
struct Ended<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.shared.forget(self.id);
    }
}

struct Duplex<'a>(&'a TcpStream);

impl Read for Duplex<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(into)
    }
}

impl std::io::Write for Duplex<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests;
