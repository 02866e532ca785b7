//! What is read over a WebSocket: a watch, an event a message, and the log of a pod, as it comes.
//!
//! Owns what a message is. Refuses to know how the answer comes about: it is that of a plain GET, whose
//! body is sent in messages.

use ::stream::upgrade::{self, Listener};
use ::stream::websocket::{self, Said};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt, future::BoxFuture, stream};
use http::{HeaderName, Request, Response, StatusCode, header, request::Parts};
use http_body_util::BodyStream;
use meta::Status;
use serve::{Body, Connection};

use crate::{request::RequestInfo, server::Core};

const BASE64: &str = "base64.binary.k8s.io";

/// The subprotocols of logs; the empty one serves clients that name none.
const LOGS: &[&str] = &["", "binary.k8s.io", BASE64];

/// A WebSocket that a request asks for.
pub(crate) struct Socket {
    listener: Listener,
    connection: BoxFuture<'static, std::io::Result<Connection>>,
    log: bool,
}

/// Takes the WebSocket off a request that asks for one where that means something: what is left is a
/// plain GET.
///
/// # Errors
/// 400 or 403 where a WebSocket is asked for in a way that is not spoken here.
pub(crate) fn take(parts: &mut Parts, info: &RequestInfo) -> Result<Option<Socket>, Status> {
    let log = info.resource() == "pods" && info.subresource() == "log";
    let watch = info.verb() == "watch";
    if !(log || watch) || !info.is_resource() || !upgrade::is_websocket(&parts.headers) {
        return Ok(None);
    }
    let listener = upgrade::listener(&parts.headers, if log { LOGS } else { &[] });
    let listener = listener.map_err(|refusal| {
        let reason =
            if refusal.status() == StatusCode::FORBIDDEN { "Forbidden" } else { "BadRequest" };
        Status::new(refusal.status().as_u16(), reason, refusal.to_string())
    })?;
    let mut request = Request::new(());
    std::mem::swap(request.extensions_mut(), &mut parts.extensions);
    let connection = serve::upgraded(&mut request);
    std::mem::swap(request.extensions_mut(), &mut parts.extensions);
    let own: Vec<HeaderName> = parts.headers.keys().filter(|name| is_own(name)).cloned().collect();
    for name in own {
        parts.headers.remove(name);
    }
    Ok(Some(Socket { listener, connection, log }))
}

/// Whether a header speaks of the WebSocket.
fn is_own(name: &HeaderName) -> bool {
    *name == header::UPGRADE
        || *name == header::CONNECTION
        || name.as_str().starts_with("sec-websocket-")
}

impl Socket {
    /// Sends what a plain GET would be answered with over the WebSocket; a refusal stays as it is.
    pub(crate) fn carry(self, core: &Core, answer: Response<Body>) -> Response<Body> {
        if answer.status() != StatusCode::OK {
            return answer;
        }
        let Self { listener, connection, log } = self;
        let mut response = listener.response::<Body>();
        let media = answer.headers().get(header::CONTENT_TYPE).cloned();
        let binary =
            media.as_ref().is_some_and(|media| media.as_bytes().ends_with(b"stream=watch"));
        if let Some(media) = media.filter(|_| !log) {
            response.headers_mut().insert(header::CONTENT_TYPE, media);
        }
        let base64 = listener.protocol == BASE64;
        let pieces = pieces(answer.into_body());
        let messages = if log {
            let first = stream::iter([Bytes::new()]);
            first.chain(pieces).map(move |piece| logged(piece, base64)).boxed()
        } else {
            pieces.map(move |frame| event(frame, binary)).boxed()
        };
        let carry = async move {
            match connection.await {
                Ok(connection) => websocket::send(connection, messages).await,
                Err(error) => tracing::debug!(%error, "a WebSocket was not opened"),
            }
        };
        tokio::spawn(core.shutdown.clone().run_until_cancelled_owned(carry));
        response
    }
}

/// The pieces of a body, up to its end or a failure.
fn pieces(body: Body) -> impl Stream<Item = Bytes> + Send {
    BodyStream::new(body)
        .take_while(|frame| std::future::ready(frame.is_ok()))
        .filter_map(|frame| std::future::ready(frame.ok().and_then(|frame| frame.into_data().ok())))
}

/// A piece of a log.
fn logged(piece: Bytes, base64: bool) -> Said {
    if base64 { Said::Text(STANDARD.encode(&piece).into()) } else { Said::Binary(piece) }
}

/// An event; messages need not say how long they are.
fn event(frame: Bytes, binary: bool) -> Said {
    if binary { Said::Binary(frame.slice(frame.len().min(4)..)) } else { Said::Text(frame) }
}
