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
    namespace: Namespace,
    port: u16,
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `port` in `namespace`.
    pub(crate) fn start(namespace: &Namespace, port: u16) -> anyhow::Result<Self> {
        let listener = namespace.run(|| TcpListener::bind(("0.0.0.0", port)))??;
        let (stop, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (stop.clone(), received.clone());
        let thread = std::thread::spawn(move || {
            // It waits in the kernel: who looks at intervals adds the interval to every connection.
            while let Ok((stream, _)) = listener.accept()
                && !stopped.load(Ordering::Relaxed)
            {
                serve(stream, &counter);
            }
        });
        let namespace = namespace.clone();
        Ok(Self { namespace, port, stop, received, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let own = SocketAddr::from(([127, 0, 0, 1], self.port));
        let woken = self.namespace.run(|| TcpStream::connect_timeout(&own, PATIENCE).is_ok());
        if let (Ok(true), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// A client that sends is read to its end; one that waits gets a byte.
fn serve(mut stream: TcpStream, received: &AtomicU64) {
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let _ = stream.set_write_timeout(Some(PATIENCE));
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
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.read_exact(&mut [0]).context("read the greeting")?;
        let buffer = vec![7; BUFFER];
        let (before, begin) = (server.received.load(Ordering::Relaxed), Instant::now());
        while begin.elapsed() < duration {
            stream.write_all(&buffer).context("a stream stands still")?;
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
    /// How long each answer took.
    pub(crate) times: Vec<Duration>,
    /// Questions that were asked again because no answer came.
    pub(crate) lost: u64,
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
    let ask = || Asking::start(to, question, window)?.until(&left, duration);
    let answers = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..sockets).map(|_| scope.spawn(|| client.run(ask))).collect();
        let mut all = Answers { times: Vec::new(), lost: 0 };
        for one in asking {
            let one = one.join().map_err(|_| anyhow::anyhow!("a client panicked"))???;
            all.times.extend(one.times);
            all.lost += one.lost;
        }
        anyhow::Ok(all)
    })?;
    ensure!(!answers.times.is_empty(), "{to} answers nothing");
    Ok(answers)
}

/// Questions under way on one socket.
struct Asking {
    socket: UdpSocket,
    question: Vec<u8>,
    /// When each was asked, by its number.
    sent: Vec<Instant>,
}

impl Asking {
    fn start(to: SocketAddr, question: &[u8], window: u16) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let sent = vec![Instant::now(); window.into()];
        let mut asking = Self { socket, question: question.to_vec(), sent };
        (0..window).try_for_each(|number| asking.send(number))?;
        Ok(asking)
    }

    fn send(&mut self, number: u16) -> anyhow::Result<()> {
        self.question[..2].copy_from_slice(&number.to_be_bytes());
        self.sent[usize::from(number)] = Instant::now();
        self.socket.send(&self.question)?;
        Ok(())
    }

    /// Asks on until none is left to ask or `duration` is over. What is lost is asked again when
    /// nothing comes any more.
    fn until(mut self, left: &AtomicU64, duration: Duration) -> anyhow::Result<Answers> {
        let (mut times, mut lost, mut answer) = (Vec::new(), 0, [0; 1500]);
        let begin = Instant::now();
        while begin.elapsed() < duration {
            match self.socket.recv(&mut answer) {
                Ok(4..) => {}
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    for number in 0..self.sent.len() {
                        lost += 1;
                        self.send(number as u16)?;
                    }
                    continue;
                }
                Err(error) => return Err(error).context("no answer"),
            }
            let number = u16::from_be_bytes([answer[0], answer[1]]);
            let asked = self.sent.get(usize::from(number)).context("an answer to nothing")?;
            ensure!(answer[3] & 0x0f == 0, "a wrong answer");
            times.push(asked.elapsed());
            let one_less = |left: u64| left.checked_sub(1);
            if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err() {
                break;
            }
            self.send(number)?;
        }
        Ok(Answers { times, lost })
    }
}
