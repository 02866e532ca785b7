//! A connection and its streams: one task reads frames, one writes them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::frame::{self, Frame, HEAD};
use super::headers::{Decoder, Encoder, Headers};
use crate::{Io, StreamError};

/// Chunks that a stream buffers before the connection waits for its reader.
const STREAM_BUFFER: usize = 64;
/// Frames that wait for the socket.
const WRITE_BUFFER: usize = 64;
/// Streams a peer may have open at once.
const MOST_STREAMS: usize = 2048;
/// The longest piece of data put into one frame, in bytes.
const LARGEST_DATA: usize = 32 * 1024;

const STATUS_REFUSED: u32 = 3;
const STATUS_CANCEL: u32 = 5;

/// A connection: streams that the peer opens come out of it. Dropping it ends the connection once
/// everything written has been sent.
pub struct Connection {
    opened: mpsc::Receiver<Stream>,
    opener: Opener,
    reader: JoinHandle<()>,
}

/// Opens streams on a connection.
#[derive(Clone)]
pub struct Opener {
    writer: mpsc::Sender<Out>,
    streams: Streams,
    next: Arc<AtomicU32>,
}

/// One stream: headers, and bytes both ways.
pub struct Stream {
    /// What the opener said of it.
    pub headers: Headers,
    reader: StreamReader,
    writer: StreamWriter,
}

/// The receiving half of a stream.
pub struct StreamReader {
    chunks: mpsc::Receiver<Bytes>,
}

/// The sending half of a stream. Dropping it without [`StreamWriter::finish`] leaves the stream open.
#[derive(Clone)]
pub struct StreamWriter {
    id: u32,
    writer: mpsc::Sender<Out>,
}

/// Where arriving data goes; gone once the peer has finished the stream.
type Streams = Arc<Mutex<HashMap<u32, mpsc::Sender<Bytes>>>>;

enum Out {
    Frame(Frame),
    Open { stream: u32, headers: Headers },
    Accept { stream: u32 },
}

impl Connection {
    /// The accepting side of a connection whose upgrade is done.
    ///
    /// # Errors
    /// When compression cannot be set up.
    pub fn server(io: impl Io) -> Result<Self, StreamError> {
        Self::start(io, 2)
    }

    /// The connecting side.
    ///
    /// # Errors
    /// When compression cannot be set up.
    pub fn client(io: impl Io) -> Result<Self, StreamError> {
        Self::start(io, 1)
    }

    fn start(io: impl Io, first: u32) -> Result<Self, StreamError> {
        let (read, write) = tokio::io::split(io);
        let (writer, frames) = mpsc::channel(WRITE_BUFFER);
        let (opened_sender, opened) = mpsc::channel(STREAM_BUFFER);
        let streams = Streams::default();
        tokio::spawn(write_frames(write, frames, Encoder::new()?));
        let reading = Reading {
            streams: streams.clone(),
            opened: opened_sender,
            writer: writer.downgrade(),
            own: first % 2,
        };
        let reader = tokio::spawn(reading.run(read));
        Ok(Self {
            opened,
            opener: Opener { writer, streams, next: Arc::new(AtomicU32::new(first)) },
            reader,
        })
    }

    /// The next stream that the peer opens; `None` when the connection has ended.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.opened.recv().await
    }

    /// Opens streams towards the peer.
    pub fn opener(&self) -> Opener {
        self.opener.clone()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The writer ends by itself when the last sender has gone and everything is sent.
        self.reader.abort();
        lock(&self.opener.streams).clear();
    }
}

impl Opener {
    /// Opens a stream.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when the connection has ended.
    pub async fn open(&self, headers: Headers) -> Result<Stream, StreamError> {
        let id = self.next.fetch_add(2, Ordering::Relaxed);
        let (sender, chunks) = mpsc::channel(STREAM_BUFFER);
        lock(&self.streams).insert(id, sender);
        let open = Out::Open { stream: id, headers: headers.clone() };
        self.writer.send(open).await.map_err(|_| StreamError::Closed)?;
        Ok(Stream {
            headers,
            reader: StreamReader { chunks },
            writer: StreamWriter { id, writer: self.writer.clone() },
        })
    }
}

impl Stream {
    /// Both halves.
    pub fn split(self) -> (StreamReader, StreamWriter) {
        (self.reader, self.writer)
    }
}

impl StreamReader {
    /// The next bytes; `None` when the peer has finished the stream or the connection has ended.
    pub async fn read(&mut self) -> Option<Bytes> {
        self.chunks.recv().await
    }
}

impl StreamWriter {
    /// Sends bytes; waits while the peer does not take them.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when the connection has ended.
    pub async fn write(&self, mut data: Bytes) -> Result<(), StreamError> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(LARGEST_DATA));
            self.send(Frame::Data { stream: self.id, fin: false, data: piece }).await?;
        }
        Ok(())
    }

    /// Says that no more bytes will come.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when the connection has ended.
    pub async fn finish(&self) -> Result<(), StreamError> {
        self.send(Frame::Data { stream: self.id, fin: true, data: Bytes::new() }).await
    }

    /// Gives the stream up, in both directions.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when the connection has ended.
    pub async fn reset(&self) -> Result<(), StreamError> {
        self.send(Frame::Reset { stream: self.id, status: STATUS_CANCEL }).await
    }

    async fn send(&self, frame: Frame) -> Result<(), StreamError> {
        self.writer.send(Out::Frame(frame)).await.map_err(|_| StreamError::Closed)
    }
}

async fn write_frames(
    mut io: WriteHalf<impl Io>,
    mut frames: mpsc::Receiver<Out>,
    mut encoder: Encoder,
) {
    let mut wire = BytesMut::new();
    let mut waiting = Vec::new();
    while frames.recv_many(&mut waiting, WRITE_BUFFER).await > 0 {
        for out in waiting.drain(..) {
            let frame = match encode(out, &mut encoder) {
                Ok(frame) => frame,
                Err(error) => return tracing::debug!(%error, "SPDY connection ended"),
            };
            frame::write(&frame, &mut wire);
        }
        if let Err(error) = io.write_all_buf(&mut wire).await {
            return tracing::debug!(%error, "SPDY connection ended");
        }
        if let Err(error) = io.flush().await {
            return tracing::debug!(%error, "SPDY connection ended");
        }
    }
    let _ = io.shutdown().await;
}

fn encode(out: Out, encoder: &mut Encoder) -> Result<Frame, StreamError> {
    Ok(match out {
        Out::Frame(frame) => frame,
        Out::Open { stream, headers } => {
            Frame::SynStream { stream, fin: false, block: encoder.encode(&headers)?.into() }
        }
        Out::Accept { stream } => Frame::SynReply {
            stream,
            fin: false,
            block: encoder.encode(&Headers::default())?.into(),
        },
    })
}

/// The reading side. It holds the writer weakly: the connection must be able to end while a peer
/// stays silent.
struct Reading {
    streams: Streams,
    opened: mpsc::Sender<Stream>,
    writer: mpsc::WeakSender<Out>,
    /// The parity of the streams that this side opens.
    own: u32,
}

impl Reading {
    async fn run(self, mut io: ReadHalf<impl Io>) {
        let mut decoder = Decoder::new();
        loop {
            let step = match read_frame(&mut io).await {
                Ok(frame) => self.handle(frame, &mut decoder).await,
                Err(error) => Err(error),
            };
            if let Err(error) = step {
                tracing::debug!(%error, "SPDY connection ended");
                break;
            }
        }
        lock(&self.streams).clear();
    }

    async fn handle(&self, frame: Frame, decoder: &mut Decoder) -> Result<(), StreamError> {
        match frame {
            Frame::SynStream { stream, fin, block } => {
                self.open(stream, fin, decoder.decode(&block)?).await?
            }
            Frame::SynReply { stream, fin, block } => {
                // Decoded for the sake of the compression's state.
                decoder.decode(&block)?;
                self.finished(stream, fin);
            }
            Frame::Data { stream, fin, data } => {
                let sender = lock(&self.streams).get(&stream).cloned();
                if let (Some(sender), false) = (sender, data.is_empty()) {
                    // A reader that has gone does not end the stream for the others.
                    let _ = sender.send(data).await;
                }
                self.finished(stream, fin);
            }
            Frame::Reset { stream, .. } => self.finished(stream, true),
            Frame::Ping { id } if id % 2 != self.own => {
                self.send(Out::Frame(Frame::Ping { id })).await?
            }
            Frame::GoAway { .. } | Frame::Ping { .. } | Frame::Other => {}
        }
        Ok(())
    }

    async fn open(&self, id: u32, fin: bool, headers: Headers) -> Result<(), StreamError> {
        if id % 2 == self.own {
            return Err(StreamError::Protocol("stream number of the wrong side"));
        }
        let (sender, chunks) = mpsc::channel(STREAM_BUFFER);
        match self.register(id, fin, sender) {
            Registered::New => {}
            Registered::TooMany => {
                return self
                    .send(Out::Frame(Frame::Reset { stream: id, status: STATUS_REFUSED }))
                    .await;
            }
            Registered::Twice => return Err(StreamError::Protocol("stream number used twice")),
        }
        self.send(Out::Accept { stream: id }).await?;
        let writer = self.writer.upgrade().ok_or(StreamError::Closed)?;
        let stream = Stream {
            headers,
            reader: StreamReader { chunks },
            writer: StreamWriter { id, writer },
        };
        self.opened.send(stream).await.map_err(|_| StreamError::Closed)
    }

    fn register(&self, id: u32, fin: bool, sender: mpsc::Sender<Bytes>) -> Registered {
        let mut streams = lock(&self.streams);
        if streams.len() >= MOST_STREAMS {
            Registered::TooMany
        } else if !fin && streams.insert(id, sender).is_some() {
            Registered::Twice
        } else {
            Registered::New
        }
    }

    fn finished(&self, stream: u32, fin: bool) {
        if fin {
            lock(&self.streams).remove(&stream);
        }
    }

    async fn send(&self, out: Out) -> Result<(), StreamError> {
        let writer = self.writer.upgrade().ok_or(StreamError::Closed)?;
        writer.send(out).await.map_err(|_| StreamError::Closed)
    }
}

enum Registered {
    New,
    TooMany,
    Twice,
}

async fn read_frame(io: &mut ReadHalf<impl Io>) -> Result<Frame, StreamError> {
    let mut head = [0; HEAD];
    io.read_exact(&mut head).await?;
    let mut payload = BytesMut::zeroed(frame::payload_length(&head)?);
    io.read_exact(&mut payload).await?;
    frame::parse(&head, payload.freeze())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_carry_bytes_both_ways_and_close_by_halves() {
        let (near, far) = tokio::io::duplex(1000);
        let client = Connection::client(near).unwrap();
        let mut server = Connection::server(far).unwrap();
        let opener = client.opener();
        let echo = tokio::spawn(async move {
            let (mut reader, writer) = server.accept().await.unwrap().split();
            while let Some(chunk) = reader.read().await {
                writer.write(chunk).await.unwrap();
            }
            writer.finish().await.unwrap();
            server.accept().await.is_none()
        });
        let stream = opener.open(Headers::new([("streamType", "data")])).await.unwrap();
        let (mut reader, writer) = stream.split();
        let sent: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        let data = Bytes::from(sent.clone());
        let sending = tokio::spawn(async move {
            writer.write(data).await.unwrap();
            writer.finish().await.unwrap();
        });
        let mut received = Vec::new();
        while let Some(chunk) = reader.read().await {
            received.extend_from_slice(&chunk);
        }
        assert_eq!(received, sent);
        sending.await.unwrap();
        drop((client, opener, reader));
        assert!(echo.await.unwrap(), "the server must see the end of the connection");
    }

    #[tokio::test]
    async fn a_broken_peer_ends_the_connection() {
        use tokio::io::AsyncWriteExt;
        let (mut near, far) = tokio::io::duplex(1000);
        let mut server = Connection::server(far).unwrap();
        near.write_all(&[0x80, 3, 0, 1, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 9, 9])
            .await
            .unwrap();
        assert!(server.accept().await.is_none());
    }
}
