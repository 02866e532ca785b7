//! Port-forward in messages: each port has a channel for data and one for errors, numbered in the order in
//! which the request names the ports. The first message on each says its port.

use std::future::Future;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::{decode, encode};
use crate::Io;
use crate::session::BUFFER;

/// The subprotocols in which [`forward`] speaks; the empty one serves clients that name none.
pub const PORT_PROTOCOLS: [&str; 3] = ["v4.channel.k8s.io", BASE64, ""];
const BASE64: &str = "v4.base64.channel.k8s.io";

/// The most ports on one connection: numbers of channels stay printable in base64.
pub const MOST_PORTS: usize = 32;
/// How long a client may say nothing before it is taken for gone.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
/// The most bytes in a message.
const CHUNK: usize = 32 * 1024;

/// Serves a WebSocket whose handshake is done: connects to each port by `dial` and carries bytes, until all
/// connections have ended or the client goes. What `dial` reports goes to the port's channel of errors.
pub async fn forward<I, D, F>(io: impl Io, protocol: &str, ports: &[u16], dial: D)
where
    I: Io,
    D: Fn(u16) -> F,
    F: Future<Output = Result<I, String>> + Send + 'static,
{
    let base64 = protocol == BASE64;
    let (mut sink, mut source) = super::accept(io).await.split();
    let (outgoing, mut messages) = mpsc::channel::<Message>(BUFFER);
    let (mut inputs, mut forwards) = (Vec::new(), JoinSet::new());
    for (number, port) in (0..).step_by(2).zip(ports.iter().take(MOST_PORTS)) {
        for channel in [number, number + 1] {
            if sink.send(encode(base64, channel, &port.to_le_bytes())).await.is_err() {
                return;
            }
        }
        let (input, received) = mpsc::channel(BUFFER);
        inputs.push(input);
        let channels = Channels { base64, number, outgoing: outgoing.clone() };
        forwards.spawn(carry(dial(*port), received, channels));
    }
    drop(outgoing);
    let read = async {
        while let Ok(Some(Ok(message))) = tokio::time::timeout(IDLE_TIMEOUT, source.next()).await {
            let data = match message {
                Message::Binary(data) => data,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => return,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            // What comes on a channel of errors, or after a port's connection has ended, means nothing.
            if let Some((channel, data)) = decode(base64, &data)
                && channel % 2 == 0
                && let Some(input) = inputs.get(usize::from(channel / 2))
            {
                let _ = input.send(data).await;
            }
        }
    };
    let write = async {
        while let Some(message) = messages.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}

/// Where what belongs to one port goes out.
struct Channels {
    base64: bool,
    number: u8,
    outgoing: mpsc::Sender<Message>,
}

/// Carries one port's connection.
async fn carry<I: Io>(
    dialing: impl Future<Output = Result<I, String>>,
    mut received: mpsc::Receiver<Bytes>,
    Channels { base64, number, outgoing }: Channels,
) {
    let (mut read, mut write) = match dialing.await {
        Ok(connection) => tokio::io::split(connection),
        Err(error) => {
            let _ = outgoing.send(encode(base64, number + 1, error.as_bytes())).await;
            return;
        }
    };
    let send = async {
        while let Some(data) = received.recv().await {
            if write.write_all(&data).await.is_err() {
                break;
            }
        }
    };
    let receive = async {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        while read.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
            if outgoing.send(encode(base64, number, &buffer.split())).await.is_err() {
                return;
            }
            buffer.reserve(CHUNK);
        }
    };
    tokio::pin!(send, receive);
    tokio::select! {
        () = &mut receive => {}
        // A pod that reads no more may still have something to say.
        () = &mut send => receive.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    /// One port that says a text twice as loud, one that nobody listens on.
    async fn dial(port: u16) -> Result<tokio::io::DuplexStream, String> {
        if port != 80 {
            return Err("nobody listens".to_owned());
        }
        let (near, mut far) = tokio::io::duplex(64);
        tokio::spawn(async move {
            let mut text = [0; 5];
            far.read_exact(&mut text).await.unwrap();
            far.write_all(&text.to_ascii_uppercase()).await.unwrap();
        });
        Ok(near)
    }

    #[tokio::test]
    async fn ports_have_channels_and_failures_are_told() {
        for protocol in PORT_PROTOCOLS {
            let base64 = protocol == BASE64;
            let (near, far) = tokio::io::duplex(1024);
            let server = tokio::spawn(forward(near, protocol, &[80, 0x1234], dial));
            let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
            client.send(encode(base64, 9, b"no such channel")).await.unwrap();
            client.send(encode(base64, 0, b"hello")).await.unwrap();
            let mut heard = Vec::new();
            while let Some(Ok(message)) = client.next().await {
                if !message.is_close() {
                    let (channel, data) = decode(base64, &message.into_data()).unwrap();
                    heard.push((channel, data));
                }
            }
            heard[4..].sort();
            let port = |text: &'static [u8]| Bytes::from_static(text);
            let first = [(0, port(&[80, 0])), (1, port(&[80, 0]))];
            let second = [(2, port(&[0x34, 0x12])), (3, port(&[0x34, 0x12]))];
            assert_eq!(heard[..4], [first, second].concat(), "{protocol}");
            assert_eq!(heard[4..], [(0, port(b"HELLO")), (3, port(b"nobody listens"))]);
            server.await.unwrap();
        }
    }

    #[tokio::test]
    async fn it_ends_with_its_client() {
        let (near, far) = tokio::io::duplex(1024);
        let server = tokio::spawn(forward(near, "", &[80], dial));
        drop(far);
        server.await.unwrap();
    }
}
