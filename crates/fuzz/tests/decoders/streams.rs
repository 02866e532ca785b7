//! What peers send on upgraded connections: SPDY frames, WebSocket messages, and SPDY within them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use skiff_fuzz::{Rng, campaign, memory, mutate};
use stream::session::{Session, Wanted};
use stream::spdy::{Connection, Headers};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// What a connection may hold: the largest frame, its buffers, and what it has answered. Bytes.
const HELD: usize = 24 << 20;
const WANTED: Wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: true };

/// Runs a connection on a runtime of its own, in paused time: what waits for ever waits no time at all.
fn on_a_runtime(work: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let ((), held) = memory::peak(|| {
        runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(86_400), work).await })
            .expect("connections end")
    });
    assert!(held < HELD, "{held}");
}

/// What a client of SPDY writes that opens streams and uses them.
fn spoken() -> Vec<u8> {
    let mut written = Vec::new();
    on_a_runtime(async {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let client = Connection::client(near).expect("zlib");
        let opener = client.opener();
        for kind in ["error", "stdin", "stdout", "stderr", "resize"] {
            let headers = Headers::new([("streamType", kind), ("port", "80"), ("requestID", "1")]);
            let (_, writer) = opener.open(headers).await.expect("opens").split();
            writer.write(Bytes::from_static(b"{\"Width\":80}")).await.expect("writes");
            writer.finish().await.expect("finishes");
            writer.reset().await.expect("resets");
        }
        drop((client, opener));
        far.read_to_end(&mut written).await.expect("reads");
    });
    // A ping and a goodbye, which this client never says.
    written.extend_from_slice(&[
        0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1, 0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    written
}

/// Feeds the bytes, and reads and forgets whatever comes back.
fn peer(bytes: Vec<u8>) -> DuplexStream {
    let (mut near, far) = tokio::io::duplex(1 << 14);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(&mut near);
        let send = async {
            let _ = write.write_all(&bytes).await;
            let _ = write.shutdown().await;
        };
        let forget = async {
            let mut sink = tokio::io::sink();
            let _ = tokio::io::copy(&mut read, &mut sink).await;
        };
        tokio::join!(send, forget);
    });
    far
}

#[test]
fn spdy_connections_end_whatever_is_said() {
    let seed = spoken();
    assert!(seed.len() > 100);
    campaign("spdy", 600, |rng| {
        let bytes = mutate::bytes(rng, std::slice::from_ref(&seed));
        on_a_runtime(async {
            let mut server = Connection::server(peer(bytes.clone())).expect("zlib");
            while let Some(stream) = server.accept().await {
                let (mut reader, writer) = stream.split();
                tokio::spawn(async move {
                    while let Some(data) = reader.read().await {
                        let _ = writer.write(data).await;
                    }
                    let _ = writer.finish().await;
                });
            }
        });
        on_a_runtime(async {
            if let Ok(session) = Session::serve_spdy(peer(bytes.clone()), WANTED).await {
                drain(session).await;
            }
            let connection = Connection::server(peer(bytes)).expect("zlib");
            let dial = |_| async { Ok::<_, String>(tokio::io::duplex(64).0) };
            stream::portforward::serve(connection, dial).await;
        });
    });
}

/// Reads a session to its end, saying something back.
async fn drain(mut session: Session) {
    while let Some(packet) = session.incoming.recv().await {
        if session.outgoing.send(packet).await.is_err() {
            return;
        }
    }
}

/// A frame of a client: its data is masked with zeros, so that damage stays what it is.
fn websocket(opcode: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match u16::try_from(data.len()) {
        Ok(short @ 0..126) => frame.push(0x80 | u8::try_from(short).expect("short")),
        Ok(longer) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&longer.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(data.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(data);
    frame
}

fn conversation(rng: &mut Rng, spdy: &[u8]) -> Vec<u8> {
    let said: [&[u8]; 7] = [
        b"\0input",
        b"\x04{\"Width\":80,\"Height\":25}",
        b"\xff\0",
        b"0aW5wdXQ=",
        b"4e30=",
        b"",
        spdy,
    ];
    let mut out = Vec::new();
    for _ in 0..rng.random_range(1..8) {
        let opcode = [2, 2, 1, 8, 9, 10, 0].choose(rng).copied().unwrap_or_default();
        out.extend(websocket(opcode, said.choose(rng).copied().unwrap_or_default()));
    }
    out
}

#[test]
fn websockets_end_whatever_is_said() {
    let spdy = Arc::new(spoken());
    campaign("websockets", 600, |rng| {
        let seeds = [conversation(rng, &spdy), conversation(rng, &spdy)];
        let bytes = mutate::bytes(rng, &seeds);
        let protocol = stream::websocket::PROTOCOLS.choose(rng).copied().unwrap_or_default();
        on_a_runtime(async {
            drain(stream::websocket::serve(peer(bytes.clone()), protocol, WANTED).await).await;
            let mut far = stream::websocket::tunnel(peer(bytes.clone())).await;
            let _ = far.write_all(b"answer").await;
            let _ = far.shutdown().await;
            let mut read = Vec::new();
            let _ = far.read_to_end(&mut read).await;
            let said = stream::websocket::Said::Text(Bytes::from_static(b"{}"));
            stream::websocket::send(peer(bytes), futures::stream::iter([said])).await;
        });
    });
}

#[test]
fn headers_of_upgrades_are_refused_or_agreed_on() {
    let seeds = [
        "v5.channel.k8s.io, v4.channel.k8s.io",
        "SPDY/3.1",
        "websocket",
        "Upgrade, keep-alive",
        "SPDY/3.1+portforward.k8s.io",
    ];
    campaign("upgrades", 2000, |rng| {
        let mut headers = http::HeaderMap::new();
        for name in [
            "upgrade",
            "connection",
            "sec-websocket-protocol",
            "sec-websocket-key",
            "sec-websocket-version",
            "x-stream-protocol-version",
        ] {
            if let Ok(value) = mutate::text(rng, &seeds).parse() {
                headers.insert(name, value);
            }
        }
        let _ = stream::upgrade::is_websocket(&headers);
        let _ = stream::upgrade::listener(&headers, &["", "base64.binary.k8s.io"]);
    });
}
