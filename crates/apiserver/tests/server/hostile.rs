//! Peers that mean no good, or nothing at all: floods of headers, heads that never end, connections on which
//! nothing is ever asked.

use std::{net::SocketAddr, time::Duration};

use crate::support::Cluster;
use serve::ServerOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};

async fn connect(cluster: &Cluster, address: SocketAddr) -> TlsStream<TcpStream> {
    let authority = cluster.authority.certificate_der().expect("certificate");
    let config = serve::tls::client_config(&[authority], None).expect("TLS");
    let connector = TlsConnector::from(config);
    let socket = TcpStream::connect(address).await.expect("connects");
    let name = rustls::pki_types::ServerName::from(address.ip());
    connector.connect(name, socket).await.expect("handshake")
}

/// What comes back for some bytes, until the server hangs up or an answer's head is whole.
async fn answer(stream: &mut TlsStream<TcpStream>, request: &[u8]) -> String {
    // The server may have hung up already.
    let _ = stream.write_all(request).await;
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    while !text.windows(4).any(|part| part == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => text.extend_from_slice(&buffer[..read]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

const PLAIN: &[u8] = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn floods_of_headers_are_refused() {
    let cluster = Cluster::start().await;
    let address = cluster.listen(cluster.server.clone()).await;
    let many: String = (0..500).map(|number| format!("x-{number}: a\r\n")).collect();
    let long = format!("x: {}\r\n", "a".repeat(1 << 20));
    for flood in [many, long] {
        let mut stream = connect(&cluster, address).await;
        let request = format!("GET /livez HTTP/1.1\r\nhost: a\r\n{flood}\r\n");
        let shown = answer(&mut stream, request.as_bytes()).await;
        assert!(shown.is_empty() || shown.starts_with("HTTP/1.1 431"), "{shown}");
    }
    let mut stream = connect(&cluster, address).await;
    let shown = answer(&mut stream, b"\x16\x03\x01 nonsense \r\n\r\n").await;
    assert!(shown.is_empty() || shown.starts_with("HTTP/1.1 400"), "{shown}");
    let mut stream = connect(&cluster, address).await;
    assert!(answer(&mut stream, PLAIN).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn those_who_only_hold_connections_lose_them() {
    let cluster = Cluster::start().await;
    let options = ServerOptions {
        max_connections: 8,
        // Enough for whoever means to ask something.
        header_timeout: Duration::from_secs(3),
        ..ServerOptions::default()
    };
    let address = cluster.listen_with(cluster.server.clone(), options).await;
    let mut held = Vec::new();
    for number in 0..8 {
        let mut stream = connect(&cluster, address).await;
        if number % 2 == 0 {
            stream.write_all(b"GET /livez HTTP/1.1\r\nx-slow: ").await.expect("written");
        }
        held.push(stream);
    }
    // All places are taken: this one waits until the others were thrown out.
    let mut stream = connect(&cluster, address).await;
    assert!(answer(&mut stream, PLAIN).await.starts_with("HTTP/1.1 200"));
    for mut stream in held {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        let shown = String::from_utf8_lossy(&rest).into_owned();
        assert!(!shown.starts_with("HTTP/1.1 200"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_connections_are_in_nobodys_way() {
    let cluster = Cluster::start().await;
    let address = cluster.listen(cluster.server.clone()).await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(TcpStream::connect(address).await.expect("connects"));
    }
    let mut stream = connect(&cluster, address).await;
    assert!(answer(&mut stream, PLAIN).await.starts_with("HTTP/1.1 200"));
    drop(idle);
}
