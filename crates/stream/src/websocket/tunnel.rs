//! A stream of bytes through a WebSocket: what comes in binary messages is read, what is written goes
//! out in binary messages. Message borders mean nothing.

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::tungstenite::Message;

use crate::Io;

const BUFFER: usize = 64 * 1024;

/// The far end of the tunnel. It ends when the WebSocket does, and the other way round.
pub async fn tunnel(io: impl Io) -> DuplexStream {
    let (mut sink, mut source) = super::accept(io).await.split();
    let (near, far) = tokio::io::duplex(BUFFER);
    let (mut read, mut write) = tokio::io::split(near);
    tokio::spawn(async move {
        while let Some(Ok(message)) = source.next().await {
            let data = match message {
                Message::Binary(data) => data,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            if write.write_all(&data).await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buffer = BytesMut::with_capacity(BUFFER);
        while read.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
            if sink.send(Message::binary(buffer.split().freeze())).await.is_err() {
                return;
            }
            buffer.reserve(BUFFER / 2);
        }
        let _ = sink.close().await;
    });
    far
}
