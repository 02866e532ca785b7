//! WebSockets: a remote command's channels in messages, messages to who only listens, and byte streams
//! tunnelled through one.

mod channels;
mod messages;
mod tunnel;

use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::Io;

pub use channels::{PROTOCOLS, serve};
pub use messages::{Said, send};
pub use tunnel::tunnel;

/// The longest message that is read, in bytes.
const LARGEST_MESSAGE: usize = 1 << 20;

async fn accept<I: Io>(io: I) -> WebSocketStream<I> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}
