//! The gRPC health check (grpc.health.v1), spoken directly: two tiny messages do not need bindings.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, time::timeout};

/// Longest answer read, bytes.
const ANSWER: usize = 4096;

/// Asks `service` (empty: the server as a whole) and waits at most `limit`.
pub(super) async fn check(
    host: &str,
    port: i32,
    service: &str,
    limit: Duration,
) -> Result<(), String> {
    let port = u16::try_from(port).map_err(|_| format!("invalid port {port}"))?;
    match timeout(limit, ask(host, port, service)).await {
        Ok(Ok(status)) => judge(status),
        Ok(Err(error)) => Err(format!("error: health rpc probe failed: {error}")),
        Err(_) => Err(format!(
            "timeout: failed to connect service {host}:{port:?} within {}s: context deadline exceeded",
            limit.as_secs()
        )),
    }
}

fn judge(status: u64) -> Result<(), String> {
    let name = match status {
        1 => return Ok(()),
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    };
    Err(format!("service unhealthy (responded with {name:?})"))
}

async fn ask(host: &str, port: u16, service: &str) -> Result<u64, String> {
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|e| crate::http_get::dial(host, port, &e))?;
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let exchange = async {
        let request =
            http::Request::post(format!("http://{host}:{port}/grpc.health.v1.Health/Check"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("user-agent", "kube-probe/1.36")
                .body(Full::new(frame(service)))
                .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let headers = response.headers().clone();
        let body = Limited::new(response.into_body(), ANSWER)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let code = trailers.get("grpc-status").or_else(|| headers.get("grpc-status"));
        match code.and_then(|c| c.to_str().ok()) {
            Some("0") => status(&body.to_bytes()).ok_or_else(|| "malformed answer".to_owned()),
            Some("12") => Err(
                "this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                    .into(),
            ),
            Some(code) => {
                let message = trailers.get("grpc-message").or_else(|| headers.get("grpc-message"));
                let message = message.and_then(|m| m.to_str().ok()).unwrap_or_default();
                Err(format!("rpc error: code = {code} desc = {message}"))
            }
            None => Err("answer without a status".to_owned()),
        }
    };
    tokio::select! {
        result = exchange => result,
        _ = connection => Err("connection closed".to_owned()),
    }
}

/// A HealthCheckRequest in its frame: field 1 is the service's name.
fn frame(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length as u8) | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put(message);
    framed.freeze()
}

/// The status in a framed HealthCheckResponse: field 1, a number; absent means unknown.
fn status(framed: &[u8]) -> Option<u64> {
    let message = framed.get(5..)?;
    match message {
        [] => Some(0),
        [0x08, value, ..] => Some(u64::from(*value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        assert_eq!(&frame("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&frame("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        assert!(judge(1).is_ok());
        assert_eq!(judge(2).unwrap_err(), "service unhealthy (responded with \"NOT_SERVING\")");
    }
}
