//! Traffic between network namespaces: bounded streams, connections and datagrams, and how fast
//! they are. Knows nothing of what lies between.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use network::lab::Namespace;
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

/// No single answer takes longer unless it is lost.
const PATIENCE: Duration = Duration::from_secs(2);
const BUFFER: usize = 256 * 1024;

/// Answers connections with one byte, or swallows what they send, until dropped.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `port` in `namespace`.
    pub(crate) fn start(namespace: &Namespace, port: u16) -> anyhow::Result<Self> {
        let listener = namespace.run(|| TcpListener::bind(("0.0.0.0", port)))??;
        listener.set_nonblocking(true)?;
        let (stop, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (stop.clone(), received.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => serve(stream, &counter),
                    Err(_) => std::thread::sleep(Duration::from_micros(100)),
                }
            }
        });
        Ok(Self { stop, received, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A client that sends is read to its end; one that waits gets a byte.
fn serve(mut stream: TcpStream, received: &AtomicU64) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_read_timeout(Some(PATIENCE));
    if stream.write_all(b"!").is_err() {
        return;
    }
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        received.fetch_add(length as u64, Ordering::Relaxed);
    }
}

/// Bytes a second of one stream to a server.
pub(crate) fn throughput(
    client: &Namespace,
    server: &Server,
    to: SocketAddr,
    duration: Duration,
) -> anyhow::Result<f64> {
    client.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).context("connect")?;
        stream.read_exact(&mut [0])?;
        let buffer = vec![7; BUFFER];
        let (before, begin) = (server.received.load(Ordering::Relaxed), Instant::now());
        while begin.elapsed() < duration {
            stream.write_all(&buffer)?;
        }
        let bytes = server.received.load(Ordering::Relaxed) - before;
        Ok(bytes as f64 / begin.elapsed().as_secs_f64())
    })?
}

/// One connection and one byte; how long until both were there.
fn connect(to: SocketAddr) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut [0]).context("read the greeting")?;
    let taken = begin.elapsed();
    // Ports must not run out.
    setsockopt(&stream.as_fd(), sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?;
    Ok(taken)
}

/// How long each of so many connections took, one after the other.
pub(crate) fn connections(
    client: &Namespace,
    to: SocketAddr,
    count: usize,
) -> anyhow::Result<Vec<Duration>> {
    client.run(|| (0..count).map(|_| connect(to)).collect())?
}

/// Waits until one connection succeeds.
pub(crate) fn until_connected(
    client: &Namespace,
    to: SocketAddr,
    limit: Duration,
) -> anyhow::Result<Duration> {
    client.run(|| {
        let begin = Instant::now();
        loop {
            match TcpStream::connect_timeout(&to, Duration::from_millis(20)) {
                Ok(_) => return Ok(begin.elapsed()),
                Err(error) => {
                    ensure!(begin.elapsed() < limit, "{to} does not answer: {error}");
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
    })?
}

/// What came of questions to a datagram server.
pub(crate) struct Answers {
    pub(crate) count: u64,
    pub(crate) times: Vec<Duration>,
}

/// Sends `question` (whose first two bytes are its number) from `sockets` sockets, so many under way
/// on each, until `count` are answered or `duration` is over.
pub(crate) fn questions(
    client: &Namespace,
    to: SocketAddr,
    question: &[u8],
    (sockets, window): (usize, u16),
    count: u64,
    duration: Duration,
) -> anyhow::Result<Answers> {
    let left = AtomicU64::new(count);
    let ask = || -> anyhow::Result<Vec<Duration>> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let (mut question, mut answer) = (question.to_vec(), [0; 1500]);
        let (mut sent, mut times) = (vec![Instant::now(); window.into()], Vec::new());
        let mut send = |number: u16, sent: &mut [Instant]| -> anyhow::Result<()> {
            question[..2].copy_from_slice(&number.to_be_bytes());
            sent[usize::from(number)] = Instant::now();
            socket.send(&question)?;
            Ok(())
        };
        let begin = Instant::now();
        for number in 0..window {
            send(number, &mut sent)?;
        }
        while begin.elapsed() < duration {
            match socket.recv(&mut answer) {
                Ok(2..) => {}
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("no answer"),
            }
            let number = u16::from_be_bytes([answer[0], answer[1]]);
            ensure!(number < window && answer[3] & 0x0f == 0, "a wrong answer");
            times.push(sent[usize::from(number)].elapsed());
            if left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_err()
            {
                break;
            }
            send(number, &mut sent)?;
        }
        Ok(times)
    };
    let times = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..sockets).map(|_| scope.spawn(|| client.run(ask))).collect();
        let mut times = Vec::new();
        for one in asking {
            times.extend(one.join().map_err(|_| anyhow::anyhow!("a client panicked"))???);
        }
        anyhow::Ok(times)
    })?;
    Ok(Answers { count: times.len() as u64, times })
}
