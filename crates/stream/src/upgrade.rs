//! What a request asks to be upgraded to, and the answer that accepts it.

use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// The name of SPDY/3.1 in an Upgrade header.
pub const SPDY: &str = "SPDY/3.1";
/// Before a subprotocol of this form, SPDY is tunnelled through the WebSocket.
pub const TUNNEL_PREFIX: &str = "SPDY/3.1+";

/// What carries the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// SPDY/3.1 right on the connection.
    Spdy,
    /// A WebSocket.
    WebSocket,
}

/// An upgrade that both sides can speak.
#[derive(Debug, Clone)]
pub struct Upgrade {
    /// What carries the streams.
    pub transport: Transport,
    /// The subprotocol chosen from those offered; empty where a WebSocket client names none.
    pub protocol: &'static str,
    key: Option<String>,
}

/// Why a request is not upgraded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not ask for an upgrade that is known here: 400.
    #[error("you must specify at least 1 'Upgrade' header: SPDY/3.1 or websocket")]
    NoUpgrade,
    /// None of the subprotocols it offers is known here: 403, as clients expect.
    #[error(
        "unable to upgrade: unable to negotiate protocol: client supports {client:?}, server accepts {server:?}"
    )]
    Protocol {
        /// What the client offers.
        client: Vec<String>,
        /// What is spoken here.
        server: Vec<&'static str>,
    },
}

impl Refusal {
    /// The HTTP status that tells the client.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoUpgrade => StatusCode::BAD_REQUEST,
            Self::Protocol { .. } => StatusCode::FORBIDDEN,
        }
    }
}

/// Chooses transport and subprotocol. `spdy` and `websocket` list what is spoken here, best first;
/// an empty name in `websocket` allows clients that name none.
///
/// # Errors
/// When the request asks for no upgrade, or offers nothing that is spoken here.
pub fn negotiate(
    headers: &HeaderMap,
    spdy: &[&'static str],
    websocket: &[&'static str],
) -> Result<Upgrade, Refusal> {
    let wanted = headers.get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if wanted.eq_ignore_ascii_case(SPDY) {
        let protocol = choose(offered(headers, &STREAM_PROTOCOL), spdy)?;
        return Ok(Upgrade { transport: Transport::Spdy, protocol, key: None });
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|value| value.to_str().ok());
    match key {
        Some(key) if wanted.eq_ignore_ascii_case("websocket") => {
            let protocol = choose(offered(headers, &SEC_WEBSOCKET_PROTOCOL), websocket)?;
            Ok(Upgrade { transport: Transport::WebSocket, protocol, key: Some(key.to_owned()) })
        }
        _ => Err(Refusal::NoUpgrade),
    }
}

fn offered(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
        .collect()
}

fn choose(client: Vec<String>, server: &[&'static str]) -> Result<&'static str, Refusal> {
    let common = if client.is_empty() {
        server.iter().find(|protocol| protocol.is_empty())
    } else {
        client.iter().find_map(|wanted| server.iter().find(|protocol| *protocol == wanted))
    };
    common.copied().ok_or_else(|| Refusal::Protocol { client, server: server.to_vec() })
}

impl Upgrade {
    /// The 101 answer.
    pub fn response<B: Default>(&self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        match &self.key {
            None => {
                headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
                headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(self.protocol));
            }
            Some(key) => websocket(headers, key, self.protocol),
        }
        response
    }
}

/// The headers that accept a WebSocket.
fn websocket(headers: &mut HeaderMap, key: &str, protocol: &str) {
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let (false, Ok(protocol)) = (protocol.is_empty(), HeaderValue::from_str(protocol)) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
}

/// A WebSocket for a client that only listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The subprotocol; empty where the client names none.
    pub protocol: String,
    key: String,
}

/// Whether the headers ask for a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut connection = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    upgrade.eq_ignore_ascii_case("websocket")
        && connection.any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// Accepts a client that only listens, in one of the subprotocols `spoken`, or in any single one where
/// that says nothing.
///
/// # Errors
/// When the request asks for no WebSocket, or offers nothing that is spoken here.
pub fn listener(headers: &HeaderMap, spoken: &[&'static str]) -> Result<Listener, Refusal> {
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|value| value.to_str().ok());
    let Some(key) = key.filter(|_| is_websocket(headers)) else { return Err(Refusal::NoUpgrade) };
    let mut client = offered(headers, &SEC_WEBSOCKET_PROTOCOL);
    let protocol = match client.as_slice() {
        [_] | [] if spoken.is_empty() => client.pop().unwrap_or_default(),
        _ => choose(client, spoken)?.to_owned(),
    };
    Ok(Listener { protocol, key: key.to_owned() })
}

impl Listener {
    /// The 101 answer.
    pub fn response<B: Default>(&self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        websocket(headers, &self.key, &self.protocol);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    #[test]
    fn the_clients_order_decides() {
        let request = headers(&[("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v9, v4")]);
        let upgrade = negotiate(&request, &["v5", "v4"], &[]).unwrap();
        assert_eq!((upgrade.transport, upgrade.protocol), (Transport::Spdy, "v4"));
        assert_eq!(upgrade.response::<()>().headers()[&STREAM_PROTOCOL], "v4");
    }

    #[test]
    fn websockets_prove_that_they_read_the_key() {
        let request =
            headers(&[("upgrade", "websocket"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]);
        let upgrade = negotiate(&request, &[], &["v5", ""]).unwrap();
        assert_eq!(
            upgrade.response::<()>().headers()[SEC_WEBSOCKET_ACCEPT],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert!(negotiate(&request, &[], &["v5"]).is_err());
    }

    #[test]
    fn other_requests_are_refused() {
        assert_eq!(negotiate(&HeaderMap::new(), &["a"], &["a"]).unwrap_err().status(), 400);
        let request = headers(&[("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "b")]);
        assert_eq!(negotiate(&request, &["a"], &["a"]).unwrap_err().status(), 403);
    }

    #[test]
    fn listeners_name_what_they_like_or_what_is_spoken() {
        let asks = |protocols: &str| {
            headers(&[
                ("upgrade", "WebSocket"),
                ("connection", "keep-alive, Upgrade"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("sec-websocket-protocol", protocols),
            ])
        };
        let protocol = |asked: &str, spoken: &[&'static str]| {
            listener(&asks(asked), spoken).map(|listener| listener.protocol)
        };
        assert_eq!(protocol("anything", &[]), Ok("anything".to_owned()));
        assert_eq!(protocol("", &[]), Ok(String::new()));
        assert!(protocol("a, b", &[]).is_err());
        assert_eq!(protocol("a, b", &["", "b"]), Ok("b".to_owned()));
        assert!(protocol("a", &["", "b"]).is_err());
        let response = listener(&asks("x"), &[]).unwrap().response::<()>();
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "x");
        assert_eq!(listener(&HeaderMap::new(), &[]), Err(Refusal::NoUpgrade));
    }
}
