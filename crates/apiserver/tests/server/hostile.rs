//! Peers that mean no good, or nothing at all: floods of headers, heads and bodies that never end, bodies that would
//! become large, connections on which nothing is ever asked.

use std::{io::Write as _, net::SocketAddr, time::Duration};

use crate::support::Cluster;
use futures::StreamExt as _;
use http::{Method, StatusCode};
use serde_json::json;
use serve::ServerOptions;
use skiff_apiserver::ApiServerOptions;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt, AsyncWriteExt};
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

/// Bodies that say they are compressed are read as they are: nothing is unpacked.
#[tokio::test]
async fn compressed_bodies_are_not_unpacked() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..256 {
        packer.write_all(&[b' '; 1 << 20]).expect("packed");
    }
    let bomb = packer.finish().expect("packed");
    assert!(bomb.len() < 3 << 20, "{}", bomb.len());
    let maps = "/api/v1/namespaces/default/configmaps";
    for (method, path, media) in [
        (Method::POST, maps.to_owned(), "application/json"),
        (Method::POST, maps.to_owned(), "application/yaml"),
        (Method::POST, maps.to_owned(), "application/vnd.kubernetes.protobuf"),
        (Method::PATCH, format!("{maps}/a?fieldManager=m"), "application/apply-patch+yaml"),
        (Method::DELETE, format!("{maps}/a"), "application/json"),
    ] {
        for encoding in ["gzip", "deflate", "br", "gzip, gzip"] {
            let headers = [("content-type", media), ("content-encoding", encoding)];
            let asked = admin.call(method.clone(), &path, &headers, bomb.clone());
            let (answer, held) = held(asked).await;
            assert_eq!(answer.code, StatusCode::BAD_REQUEST, "{media} {}", answer.text());
            assert!(held < 64 << 20, "{media}: {held}");
        }
    }
}

/// The most that was held at once until the answer, where everything runs on this thread.
async fn held<T>(asked: impl Future<Output = T>) -> (T, usize) {
    let mut asked = std::pin::pin!(asked);
    let mut most = 0;
    let answer = std::future::poll_fn(|context| {
        let (polled, held) = fuzz::memory::peak(|| asked.as_mut().poll(context));
        most = most.max(held);
        polled
    });
    (answer.await, most)
}

/// Whoever sends a body slowly is told so, and loses the connection.
#[tokio::test]
async fn slow_bodies_run_out_of_time() {
    let advertise = "192.0.2.1:6443".parse().expect("address");
    let request_timeout = Duration::from_millis(500);
    let cluster = Cluster::start_with(ApiServerOptions {
        advertise,
        request_timeout,
        ..ApiServerOptions::default()
    })
    .await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let admin = cluster.admin();
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "slow"}});
    assert_eq!(admin.post(accounts, &account).await.code, StatusCode::CREATED);
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let made = admin.post(&format!("{accounts}/slow/token"), &request).await.json();
    let token = made["status"]["token"].as_str().expect("a token").to_owned();
    let address = cluster.listen(cluster.server.clone()).await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    for length in ["content-length: 100000", "transfer-encoding: chunked"] {
        let mut stream = connect(&cluster, address).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n{length}\r\n\r\n2\r\n{{ "
        );
        let shown = answer(&mut stream, head.as_bytes()).await;
        assert!(shown.starts_with("HTTP/1.1 504"), "{length}: {shown}");
        let mut rest = Vec::new();
        let ended =
            tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{length}: the connection stays");
    }
    // What nobody may ask is refused without waiting for a body.
    let mut stream = connect(&cluster, address).await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer x\r\ncontent-length: 9\r\n\r\n"
    );
    assert!(answer(&mut stream, head.as_bytes()).await.starts_with("HTTP/1.1 401"));
}

/// Whoever asks and does not read the answer loses the connection, and its place goes to another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_do_not_read_lose_their_connections() {
    let cluster = Cluster::start().await;
    let options = ServerOptions {
        max_connections: 1,
        write_timeout: Duration::from_millis(500),
        ..ServerOptions::default()
    };
    let long = |_: http::Request<serve::Body>| async {
        http::Response::new(serve::Body::full(vec![b'x'; 64 << 20]))
    };
    let address = cluster.listen_with(long, options).await;
    let mut holder = connect(&cluster, address).await;
    holder.write_all(PLAIN).await.expect("written");
    // Waits for the place.
    let mut stream = connect(&cluster, address).await;
    assert!(answer(&mut stream, PLAIN).await.starts_with("HTTP/1.1 200"));
    let mut rest = Vec::new();
    let _ = holder.read_to_end(&mut rest).await;
    assert!(rest.len() < 64 << 20, "{}", rest.len());
}

/// Names the address to the process that holds connections.
const ADDRESS: &str = "SKIFF_TEST_ADDRESS";
const IDLE: usize = 10_000;

/// What an idle connection may cost the server, in bytes: those of TLS and of one request's head.
const MOST_IDLE: usize = 96 << 10;

/// Not a test by itself: holds idle connections for [`ten_thousand_idle_connections_are_in_nobodys_way`], in a
/// process of its own, for there are not descriptors enough in one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other end of another test"]
async fn holds_connections() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let address: SocketAddr = address.parse().expect("an address");
    let connector = TlsConnector::from(serve::tls::unverified_client_config().expect("TLS"));
    let connections = futures::stream::iter(0..IDLE).map(|number| {
        let connector = connector.clone();
        tokio::spawn(async move {
            let socket = TcpStream::connect(address).await.expect("connects");
            let name = rustls::pki_types::ServerName::from(address.ip());
            let mut stream = connector.connect(name, socket).await.expect("handshake");
            // Some have asked before, some never do.
            if number % 2 == 0 {
                assert!(answer(&mut stream, PLAIN).await.starts_with("HTTP/1.1 200"));
            }
            stream
        })
    });
    let held: Vec<_> =
        connections.buffer_unordered(64).map(|one| one.expect("connected")).collect().await;
    println!("\n{} held", held.len());
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
    drop(held);
}

/// Bytes of memory that this process has in use.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("readable");
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_are_in_nobodys_way() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)
        .expect("within the hard limit");
    assert!(
        limit.maximum.is_none_or(|most| most > IDLE as u64 + 1000),
        "too few descriptors: {limit:?}"
    );
    let cluster = Cluster::start().await;
    let options =
        ServerOptions { header_timeout: Duration::from_secs(3600), ..ServerOptions::default() };
    let address = cluster.listen_with(cluster.server.clone(), options).await;
    let mut stream = connect(&cluster, address).await;
    assert!(answer(&mut stream, PLAIN).await.starts_with("HTTP/1.1 200"));
    let before = resident();
    let mut holder = tokio::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "hostile::holds_connections", "--ignored", "--nocapture"])
        .env(ADDRESS, address.to_string())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("starts");
    let mut lines = tokio::io::BufReader::new(holder.stdout.take().expect("piped")).lines();
    let wanted = format!("{IDLE} held");
    loop {
        let line = lines.next_line().await.expect("readable").expect("the connections are held");
        if line == wanted {
            break;
        }
    }
    let each = resident().saturating_sub(before) / IDLE;
    println!("{each} bytes an idle connection");
    assert!(each < MOST_IDLE, "{each} bytes an idle connection");
    // One that was there before, and one that comes now.
    assert!(answer(&mut stream, PLAIN).await.starts_with("HTTP/1.1 200"));
    let mut stream = connect(&cluster, address).await;
    assert!(answer(&mut stream, PLAIN).await.starts_with("HTTP/1.1 200"));
    drop(holder.stdin.take());
    assert!(holder.wait().await.expect("ends").success());
}
