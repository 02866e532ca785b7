//! The channel subprotocols: each message begins with its channel's number, as a byte or, in the
//! base64 ones, as a digit. Version 5 adds a message that ends a channel.

use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::Io;
use crate::session::{BUFFER, CHANNELS, Channel, Packet, Session, Wanted};

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const V4_BASE64: &str = "v4.base64.channel.k8s.io";
const BASE: &str = "channel.k8s.io";
const BASE_BASE64: &str = "base64.channel.k8s.io";

/// The subprotocols of remote commands over WebSockets; the empty one serves clients that name none.
pub const PROTOCOLS: &[&str] = &[V5, V4, V4_BASE64, BASE, BASE_BASE64, ""];

/// In version 5, the channel number of a message whose one byte names a channel that ends.
const CLOSE: u8 = 255;

/// How one subprotocol writes packets as messages.
#[derive(Clone, Copy)]
struct Dialect {
    base64: bool,
    /// Channels can be ended.
    closes: bool,
    /// The error channel carries a JSON status; in the older ones it carries text, and only of failure.
    status: bool,
}

impl Dialect {
    fn of(protocol: &str) -> Self {
        Self {
            base64: matches!(protocol, V4_BASE64 | BASE_BASE64),
            closes: protocol == V5,
            status: matches!(protocol, V5 | V4 | V4_BASE64),
        }
    }

    fn write(self, channel: Channel, data: &[u8]) -> Message {
        super::encode(self.base64, channel as u8, data)
    }

    fn read(self, message: &Bytes) -> Option<Packet> {
        let (number, data) = super::decode(self.base64, message)?;
        if self.closes && number == CLOSE {
            return Some(Packet { channel: channel(*data.first()?)?, data: None });
        }
        Some(Packet { channel: channel(number)?, data: Some(data) })
    }
}

fn channel(number: u8) -> Option<Channel> {
    CHANNELS.get(usize::from(number)).copied()
}

/// The server's side of a remote command over a WebSocket whose handshake is done.
pub async fn serve(io: impl Io, protocol: &str, wanted: Wanted) -> Session {
    let dialect = Dialect::of(protocol);
    let (mut sink, mut source) = super::accept(io).await.split();
    let (to_session, incoming) = mpsc::channel(BUFFER);
    let (outgoing, from_session) = mpsc::channel(BUFFER);
    // An empty message on the first channel of output tells the client that the command is there.
    let first = if wanted.stdout { Channel::Stdout } else { Channel::Error };
    let _ = sink.send(dialect.write(first, &[])).await;
    tokio::spawn(write(sink, dialect, from_session));
    tokio::spawn(async move {
        while let Some(Ok(message)) = source.next().await {
            let data = match message {
                Message::Binary(data) => data,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => break,
                // Reading answers pings.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            let Some(packet) = dialect.read(&data) else {
                tracing::debug!("a message on no channel");
                continue;
            };
            if packet.channel.is_input() && to_session.send(packet).await.is_err() {
                return;
            }
        }
        for channel in [Channel::Stdin, Channel::Resize] {
            let _ = to_session.send(Packet { channel, data: None }).await;
        }
    });
    Session { incoming, outgoing }
}

async fn write<I: Io>(
    mut sink: SplitSink<WebSocketStream<I>, Message>,
    dialect: Dialect,
    mut packets: mpsc::Receiver<Packet>,
) {
    while let Some(Packet { channel, data }) = packets.recv().await {
        let message = match data {
            Some(data) if channel == Channel::Error && !dialect.status => match failure_text(&data)
            {
                Some(text) => dialect.write(channel, text.as_bytes()),
                None => continue,
            },
            Some(data) => dialect.write(channel, &data),
            // Only clients end single channels; ours end with the connection.
            None => continue,
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
    let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = sink.send(Message::Close(Some(normal))).await;
    let _ = sink.close().await;
}

/// The message of a status that reports a failure, cut out of its JSON; a status is one flat object
/// here, written by a container runtime.
fn failure_text(status: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(status);
    if text.contains(r#""status":"Success""#) {
        return None;
    }
    let message = text.split(r#""message":""#).nth(1).and_then(|rest| rest.split('"').next());
    Some(message.unwrap_or(&text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialects_read_what_they_write() {
        for protocol in PROTOCOLS {
            let dialect = Dialect::of(protocol);
            let data = match dialect.write(Channel::Stdout, b"hello") {
                Message::Binary(data) => data,
                Message::Text(text) => Bytes::from(text),
                other => panic!("{other:?}"),
            };
            let packet =
                Packet { channel: Channel::Stdout, data: Some(Bytes::from_static(b"hello")) };
            assert_eq!(dialect.read(&data), Some(packet), "{protocol}");
        }
    }

    #[test]
    fn version_5_ends_channels() {
        let ended = Packet { channel: Channel::Stdin, data: None };
        assert_eq!(Dialect::of(V5).read(&Bytes::from_static(&[255, 0])), Some(ended));
        assert_eq!(Dialect::of(V4).read(&Bytes::from_static(&[255, 0])), None);
        assert_eq!(Dialect::of(V5).read(&Bytes::new()), None);
        assert_eq!(Dialect::of(V4_BASE64).read(&Bytes::from_static(b"1!!")), None);
    }

    #[test]
    fn older_clients_get_text_and_only_of_failure() {
        assert_eq!(failure_text(br#"{"metadata":{},"status":"Success"}"#), None);
        let failure = br#"{"metadata":{},"status":"Failure","message":"exit code 1"}"#;
        assert_eq!(failure_text(failure).as_deref(), Some("exit code 1"));
    }
}
