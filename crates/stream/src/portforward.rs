//! The server's side of port-forward: for each forwarded connection the client opens a pair of
//! streams, one for data and one for errors, that share a request id.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::task::JoinSet;

use crate::Io;
use crate::spdy::{Connection, Stream, StreamReader, StreamWriter};

/// The subprotocol over SPDY.
pub const SPDY_PROTOCOL: &str = "portforward.k8s.io";
/// The subprotocol of SPDY tunnelled through a WebSocket.
pub const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

/// Pairs of which only one half has come.
const MOST_WAITING: usize = 256;
/// How long a connection may be idle before the client is taken for gone.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
const BUFFER: usize = 32 * 1024;

/// Serves a connection until the client ends it: for each pair of streams, connects by `dial` to the
/// port and carries bytes. What `dial` reports goes to the client's error stream.
pub async fn serve<I, D, F>(mut connection: Connection, dial: D)
where
    I: Io,
    D: Fn(u16) -> F,
    F: Future<Output = Result<I, String>> + Send + 'static,
{
    let mut waiting: HashMap<String, Stream> = HashMap::new();
    let mut forwards = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = tokio::time::timeout(IDLE_TIMEOUT, connection.accept()) => stream.ok().flatten(),
            Some(_) = forwards.join_next() => continue,
        };
        let Some(stream) = stream else { return };
        let (kind, request) =
            (kind(&stream), stream.headers.get("requestID").unwrap_or_default().to_owned());
        match (waiting.remove(&request), kind) {
            (Some(other), Kind::Data) => {
                _ = forwards.spawn(forward(dial_for(&dial, &other), stream, other))
            }
            (Some(other), Kind::Error) => {
                _ = forwards.spawn(forward(dial_for(&dial, &other), other, stream))
            }
            (None, _) if waiting.len() < MOST_WAITING => _ = waiting.insert(request, stream),
            (None, _) => _ = stream.split().1.reset().await,
        }
    }
}

enum Kind {
    Data,
    Error,
}

fn kind(stream: &Stream) -> Kind {
    if stream.headers.get("streamType") == Some("error") { Kind::Error } else { Kind::Data }
}

fn dial_for<I, F>(dial: &impl Fn(u16) -> F, stream: &Stream) -> Result<F, String>
where
    F: Future<Output = Result<I, String>>,
{
    let port = stream.headers.get("port").unwrap_or_default();
    match port.parse::<u16>() {
        Ok(number) if number > 0 => Ok(dial(number)),
        _ => Err(format!("\"port\" header {port:?} is not a valid port number")),
    }
}

async fn forward<I, F>(dialing: Result<F, String>, data: Stream, error: Stream)
where
    I: Io,
    F: Future<Output = Result<I, String>>,
{
    let (reader, writer) = data.split();
    let (_, errors) = error.split();
    let connected = match dialing {
        Ok(dialing) => dialing.await,
        Err(error) => Err(error),
    };
    match connected {
        Ok(connection) => {
            let (read, write) = tokio::io::split(connection);
            tokio::join!(send(reader, write), receive(read, &writer));
        }
        Err(text) => _ = errors.write(Bytes::from(text)).await,
    }
    let _ = errors.finish().await;
    let _ = writer.finish().await;
}

async fn send(mut reader: StreamReader, mut write: WriteHalf<impl Io>) {
    while let Some(chunk) = reader.read().await {
        if write.write_all(&chunk).await.is_err() {
            return;
        }
    }
    let _ = write.shutdown().await;
}

async fn receive(mut read: ReadHalf<impl Io>, writer: &StreamWriter) {
    let mut buffer = BytesMut::with_capacity(BUFFER);
    while read.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
        if writer.write(buffer.split().freeze()).await.is_err() {
            return;
        }
        buffer.reserve(BUFFER);
    }
    let _ = writer.finish().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spdy::Headers;

    #[tokio::test]
    async fn connections_are_carried_and_failures_told() {
        let (near, far) = tokio::io::duplex(4096);
        let server = tokio::spawn(serve(Connection::server(far).unwrap(), |port| async move {
            if port == 81 {
                return Err("nobody listens".to_owned());
            }
            let (near, mut far) = tokio::io::duplex(4096);
            tokio::spawn(async move {
                let mut text = String::new();
                far.read_to_string(&mut text).await.unwrap();
                far.write_all(text.to_uppercase().as_bytes()).await.unwrap();
            });
            Ok(near)
        }));
        let client = Connection::client(near).unwrap();
        let opener = client.opener();
        for (port, data, error) in [("80", "HELLO", ""), ("81", "", "nobody listens")] {
            let pair =
                |kind| Headers::new([("streamType", kind), ("port", port), ("requestID", port)]);
            let (mut errors, error_writer) = opener.open(pair("error")).await.unwrap().split();
            error_writer.finish().await.unwrap();
            let (mut reader, writer) = opener.open(pair("data")).await.unwrap().split();
            writer.write(Bytes::from_static(b"hello")).await.unwrap();
            writer.finish().await.unwrap();
            assert_eq!(all(&mut reader).await, data);
            assert_eq!(all(&mut errors).await, error);
        }
        drop((client, opener));
        server.await.unwrap();
    }

    async fn all(reader: &mut StreamReader) -> String {
        let mut text = Vec::new();
        while let Some(chunk) = reader.read().await {
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).unwrap()
    }
}
