//! A load of HTTP requests, every one of which is accounted for.
//!
//! Two kinds of workers: one opens a connection for each request, the other keeps its connection.
//! A kept connection that the server closed before any byte of an answer may be retried once on a
//! new one (RFC 9110, 9.2.2 allows it for GET); retries are counted.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Machine;

/// No answer may take longer, however busy the machine is.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The longest answer that is read.
const LONGEST: u64 = 1 << 20;

/// What a load does.
#[derive(Clone)]
pub struct LoadOptions {
    /// Where requests go, in turn.
    pub targets: Vec<SocketAddr>,
    /// The path that is asked for.
    pub path: String,
    /// Workers that open a connection for each request.
    pub fresh: usize,
    /// Workers that keep their connection.
    pub kept: usize,
    /// Pause of a worker between two requests: bounds the load.
    pub pause: Duration,
}

/// One answered request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// When it was complete.
    pub at: Instant,
    /// The body.
    pub body: String,
}

/// What a load has seen.
#[derive(Debug, Default, Clone)]
pub struct Report {
    /// Answers with status 200.
    pub answers: Vec<Answer>,
    /// Everything else, in words.
    pub failures: Vec<String>,
    /// Requests repeated because a kept connection had been closed.
    pub retries: usize,
    /// Requests on new connections.
    pub fresh: usize,
    /// Requests on kept connections.
    pub kept: usize,
}

/// A running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    fresh: Arc<AtomicUsize>,
    kept: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    report: Arc<Mutex<Report>>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the workers on `machine`.
    pub fn start(machine: &Machine, options: &LoadOptions) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (fresh, kept) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let failed = Arc::new(AtomicUsize::new(0));
        let report = Arc::new(Mutex::new(Report::default()));
        let workers = (0..options.fresh + options.kept)
            .map(|number| {
                let worker = Worker {
                    options: options.clone(),
                    keep: number >= options.fresh,
                    began: Instant::now(),
                    next: number,
                    connection: None,
                    seen: Report::default(),
                };
                let count = if worker.keep { kept.clone() } else { fresh.clone() };
                let (stop, failed, report) = (stop.clone(), failed.clone(), report.clone());
                machine.run(move || worker.run(&stop, [&count, &failed], &report))
            })
            .collect();
        Self { stop, fresh, kept, failed, report, workers }
    }

    /// Requests finished so far.
    pub fn count(&self) -> usize {
        self.fresh() + self.kept()
    }

    /// Requests finished so far on connections of their own.
    pub fn fresh(&self) -> usize {
        self.fresh.load(Ordering::Relaxed)
    }

    /// Requests finished so far on kept connections.
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Requests failed so far, of both kinds.
    pub fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// Stops the workers after their requests under way and says what they saw.
    ///
    /// # Panics
    /// When a worker panicked.
    pub fn finish(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.join().expect("a worker does not panic");
        }
        let mut report = self.report.lock().expect("no worker panicked").clone();
        report.answers.sort_by_key(|answer| answer.at);
        report
    }
}

struct Worker {
    options: LoadOptions,
    keep: bool,
    began: Instant,
    next: usize,
    connection: Option<Connection>,
    seen: Report,
}

type Connection = BufReader<TcpStream>;

impl Worker {
    fn run(
        mut self,
        stop: &AtomicBool,
        [count, failed]: [&AtomicUsize; 2],
        report: &Mutex<Report>,
    ) {
        while !stop.load(Ordering::Relaxed) {
            match self.request() {
                Ok(body) => self.seen.answers.push(Answer { at: Instant::now(), body }),
                Err(failure) => {
                    let kind = if self.keep { "kept" } else { "new" };
                    let after = self.began.elapsed().as_secs_f64();
                    self.seen.failures.push(format!("after {after:.3} s, {kind}: {failure}"));
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            *(if self.keep { &mut self.seen.kept } else { &mut self.seen.fresh }) += 1;
            count.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(self.options.pause);
        }
        let mut all = report.lock().expect("no worker panicked");
        all.answers.append(&mut self.seen.answers);
        all.failures.append(&mut self.seen.failures);
        all.retries += self.seen.retries;
        all.fresh += self.seen.fresh;
        all.kept += self.seen.kept;
    }

    fn request(&mut self) -> Result<String, String> {
        let target = self.options.targets[self.next % self.options.targets.len()];
        let reused = self.connection.is_some();
        match self.attempt(target) {
            Err(Failure::ClosedBeforeAnswer(_)) if reused => {
                self.seen.retries += 1;
                self.attempt(target).map_err(|failure| format!("{target} after a retry: {failure}"))
            }
            other => other.map_err(|failure| format!("{target}: {failure}")),
        }
    }

    fn attempt(&mut self, target: SocketAddr) -> Result<String, Failure> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(target).map_err(Failure::Connect)?,
        };
        let header = if self.keep { "keep-alive" } else { "close" };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {target}\r\nConnection: {header}\r\n\r\n",
            self.options.path
        );
        connection.get_mut().write_all(request.as_bytes()).map_err(Failure::ClosedBeforeAnswer)?;
        let (body, reusable) = answer(&mut connection)?;
        if self.keep && reusable {
            self.connection = Some(connection);
        } else {
            // The next connection goes to the next target.
            self.next += 1;
        }
        Ok(body)
    }
}

enum Failure {
    Connect(io::Error),
    ClosedBeforeAnswer(io::Error),
    Broken(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(error) => write!(formatter, "connect: {error}"),
            Self::ClosedBeforeAnswer(error) => {
                write!(formatter, "closed before any byte of an answer: {error}")
            }
            Self::Broken(text) => formatter.write_str(text),
        }
    }
}

fn connect(target: SocketAddr) -> io::Result<Connection> {
    let stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// Reads one answer: its body, and whether the connection may carry another request.
fn answer(connection: &mut Connection) -> Result<(String, bool), Failure> {
    match connection.fill_buf() {
        Ok([]) => return Err(Failure::ClosedBeforeAnswer(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            return Err(Failure::ClosedBeforeAnswer(error));
        }
        Err(error) => return Err(Failure::Broken(format!("wait for the answer: {error}"))),
    }
    let broken = |what: &str| Failure::Broken(what.to_owned());
    let status = line(connection)?;
    let (mut length, mut reusable) = (None, true);
    loop {
        let header = line(connection)?;
        if header.is_empty() {
            break;
        }
        let (name, value) =
            header.split_once(':').ok_or_else(|| broken("a header without a colon"))?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse::<u64>().ok(),
            "connection" => reusable = !value.trim().eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let length = length
        .filter(|length| *length <= LONGEST)
        .ok_or_else(|| broken("no usable Content-Length"))?;
    let mut body = Vec::new();
    connection
        .take(length)
        .read_to_end(&mut body)
        .map_err(|error| Failure::Broken(format!("read the body: {error}")))?;
    if body.len() as u64 != length {
        return Err(broken("the body ended early"));
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    if status.split(' ').nth(1) == Some("200") {
        Ok((body, reusable))
    } else {
        Err(Failure::Broken(format!("{status}: {body}")))
    }
}

fn line(connection: &mut Connection) -> Result<String, Failure> {
    let mut line = String::new();
    let read = connection.take(16 * 1024).read_line(&mut line);
    match read {
        Ok(_) if line.ends_with('\n') => Ok(line.trim_end().to_owned()),
        Ok(_) => Err(Failure::Broken("the head of the answer ended early".to_owned())),
        Err(error) => Err(Failure::Broken(format!("read the head of the answer: {error}"))),
    }
}
