//! WebSockets: a remote command's channels in messages, those of forwarded ports, messages to who only
//! listens, and byte streams tunnelled through one.

mod channels;
mod messages;
mod ports;
mod tunnel;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::Io;

pub use channels::{PROTOCOLS, serve};
pub use messages::{Said, send};
pub use ports::{MOST_PORTS, PORT_PROTOCOLS, forward};
pub use tunnel::tunnel;

/// The longest message that is read, in bytes.
const LARGEST_MESSAGE: usize = 1 << 20;

async fn accept<I: Io>(io: I) -> WebSocketStream<I> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// A message on a channel: its number as a byte before the data, or as a digit before their base64.
fn encode(base64: bool, channel: u8, data: &[u8]) -> Message {
    if base64 {
        let digit = char::from(b'0'.saturating_add(channel));
        return Message::text(format!("{digit}{}", STANDARD.encode(data)));
    }
    let mut message = BytesMut::with_capacity(data.len() + 1);
    message.put_u8(channel);
    message.put_slice(data);
    Message::binary(message.freeze())
}

/// Which channel a message is on, and its data.
fn decode(base64: bool, message: &Bytes) -> Option<(u8, Bytes)> {
    let (number, data) = message.split_first()?;
    if base64 {
        return Some((number.checked_sub(b'0')?, STANDARD.decode(data).ok()?.into()));
    }
    Some((*number, message.slice(1..)))
}
