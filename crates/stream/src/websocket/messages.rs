//! A WebSocket whose client only listens: messages go out, what comes in is read and thrown away.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::Io;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Text; bytes that are none go out as binary.
    Text(Bytes),
    /// Bytes.
    Binary(Bytes),
}

impl From<Said> for Message {
    fn from(said: Said) -> Self {
        match said {
            Said::Binary(bytes) => Self::Binary(bytes),
            Said::Text(bytes) => match bytes.clone().try_into() {
                Ok(text) => Self::Text(text),
                Err(_) => Self::Binary(bytes),
            },
        }
    }
}

/// How long a client may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// Sends messages on a WebSocket whose handshake is done, until there are no more or the client goes.
pub async fn send(io: impl Io, messages: impl Stream<Item = Said> + Send) {
    let mut socket = super::accept(io).await;
    let mut messages = std::pin::pin!(messages);
    loop {
        let said = tokio::select! {
            biased;
            heard = socket.next() => match heard {
                Some(Ok(message)) if !message.is_close() => continue,
                _ => break,
            },
            said = messages.next() => said,
        };
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let done = said.is_none();
        let message = said.map_or_else(|| Message::Close(Some(normal)), Message::from);
        if socket.send(message).await.is_err() || done {
            break;
        }
    }
    let goodbye = async {
        while let Some(Ok(_)) = socket.next().await {}
        let _ = socket.get_mut().shutdown().await;
    };
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    #[tokio::test]
    async fn a_listener_hears_all_and_the_end() {
        let (near, far) = tokio::io::duplex(1024);
        let said = [Said::Text("{}".into()), Said::Binary(Bytes::from_static(&[0xff]))];
        let sending = tokio::spawn(send(near, futures::stream::iter(said)));
        let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        client.send(Message::text("ignored")).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::text("{}"));
        assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(vec![0xff]));
        assert!(client.next().await.unwrap().unwrap().is_close());
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn it_ends_with_its_client() {
        let (near, far) = tokio::io::duplex(1024);
        let sending = tokio::spawn(send(near, futures::stream::pending()));
        drop(far);
        sending.await.unwrap();
    }
}
