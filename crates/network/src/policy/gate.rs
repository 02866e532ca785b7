//! Where a new pod waits until policies are programmed for its addresses.
//!
//! Owns the socket and both of its ends: the CNI plugin tells what it attaches and waits, the
//! policy part answers when packets of those addresses are judged. Knows nothing of policies.

use std::{
    fs, io,
    io::{BufRead, BufReader, Write},
    net::IpAddr,
    os::{
        fd::AsRawFd,
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::subject::Attachment;

/// File name of the socket, in the network's data directory.
const SOCKET: &str = "policy.sock";
/// How long a pod waits before its attachment fails, to be tried again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the plugin waits between attempts to reach a policy part that is only starting.
const RECONNECT: Duration = Duration::from_millis(5);
/// No message is longer, in bytes.
const MESSAGE_BYTES: u64 = 16 * 1024;
/// Messages that wait for the policy part to take them.
const QUEUE: usize = 64;

/// What the plugin tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Message {
    Attach(Attachment),
    Detach(Vec<IpAddr>),
}

/// What the policy part is asked.
#[derive(Debug)]
pub(crate) enum Request {
    /// To judge these addresses' packets, and then to say so.
    Attach(Attachment, oneshot::Sender<()>),
    /// To forget these addresses.
    Detach(Vec<IpAddr>),
}

/// Where the socket is, for a network whose files are in `data_dir`.
pub(crate) fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET)
}

/// Calls `use_path` with a path to `socket` that is short enough for a socket's address.
fn shortened<T>(socket: &Path, use_path: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let directory = socket.parent().unwrap_or(Path::new("/"));
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = open(directory, flags, Mode::empty())?;
    let name = socket.file_name().unwrap_or_default();
    use_path(&Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
}

/// Answers plugins until the returned guard is dropped.
pub(crate) fn listen(socket: &Path) -> io::Result<(mpsc::Receiver<Request>, JoinSet<()>)> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = shortened(socket, |path| {
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    })?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(serve(stream, sender.clone()))),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a network plugin's connection");
                        tokio::time::sleep(PATIENCE / 100).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    });
    Ok((receiver, tasks))
}

/// One connection, one message.
async fn serve(stream: tokio::net::UnixStream, requests: mpsc::Sender<Request>) {
    let (read, mut write) = stream.into_split();
    let mut read = tokio::io::BufReader::new(read.take(MESSAGE_BYTES));
    let mut line = String::new();
    if read.read_line(&mut line).await.is_err() {
        return;
    }
    match serde_json::from_str(&line) {
        Ok(Message::Attach(attachment)) => {
            let (done, wait) = oneshot::channel();
            if requests.send(Request::Attach(attachment, done)).await.is_err() {
                return;
            }
            tokio::select! {
                programmed = wait => if programmed.is_ok() {
                    // Who has gone needs no answer.
                    let _ = write.write_all(b"\n").await;
                },
                _ = read.read_u8() => {}
            }
        }
        Ok(Message::Detach(addresses)) => {
            let _ = requests.send(Request::Detach(addresses)).await;
        }
        Err(error) => tracing::debug!(%error, "a network plugin's message cannot be read"),
    }
}

/// A pod that waits.
pub(crate) struct Waiting {
    socket: PathBuf,
    message: Message,
    until: Instant,
    stream: Option<UnixStream>,
}

/// Tells the policy part about a pod, whose packets may be judged from when
/// [`Waiting::wait`] returns.
pub(crate) fn announce(socket: &Path, attachment: Attachment) -> Waiting {
    let mut waiting = Waiting {
        socket: socket.to_owned(),
        message: Message::Attach(attachment),
        until: Instant::now() + PATIENCE,
        stream: None,
    };
    // One that cannot be reached yet is tried again by `wait`.
    waiting.stream = send(socket, &waiting.message).ok();
    waiting
}

impl Waiting {
    /// Waits until the pod is policed.
    pub(crate) fn wait(mut self) -> io::Result<()> {
        loop {
            let outcome = match self.stream.take() {
                Some(stream) => answer(stream, self.until),
                None => send(&self.socket, &self.message).and_then(|s| answer(s, self.until)),
            };
            match outcome {
                Err(error) if Instant::now() >= self.until => return Err(error),
                Err(_) => std::thread::sleep(RECONNECT),
                Ok(()) => return Ok(()),
            }
        }
    }
}

/// Tells the policy part that addresses are nobody's any more. Without a policy part there is
/// nobody to tell.
pub(crate) fn retire(socket: &Path, addresses: Vec<IpAddr>) {
    let _ = send(socket, &Message::Detach(addresses));
}

fn send(socket: &Path, message: &Message) -> io::Result<UnixStream> {
    let mut stream = shortened(socket, |path| UnixStream::connect(path))?;
    let mut text = serde_json::to_vec(message)?;
    text.push(b'\n');
    stream.write_all(&text)?;
    Ok(stream)
}

fn answer(stream: UnixStream, until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left))?;
    let mut line = String::new();
    match BufReader::new(stream).read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
