//! HTTP that is none, on the wire: damaged requests of both versions, and floods of frames. The server hangs up or
//! answers, and goes on answering others.

use std::net::SocketAddr;
use std::time::Duration;

use fuzz::{campaign, mutate};
use http::Response;
use serve::{Body, Server, ServerOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// A server without TLS that reads bodies and says how long they were.
async fn listen() -> (SocketAddr, CancellationToken) {
    let options =
        ServerOptions { header_timeout: Duration::from_secs(2), ..ServerOptions::default() };
    let server = Server::bind(([127, 0, 0, 1], 0).into(), None, options).await.expect("listens");
    let (address, shutdown) = (server.local_address().expect("address"), CancellationToken::new());
    let answer = |request: http::Request<Body>| async move {
        let length = request.into_body().read(1 << 20).await.map_or(0, |body| body.len());
        Response::new(Body::full(length.to_string()))
    };
    tokio::spawn(server.run(answer, shutdown.clone()));
    (address, shutdown)
}

/// Sends all of it, or as much as is taken, and yields how much and what came back until the server hangs up.
async fn converse(address: SocketAddr, said: &[u8]) -> (usize, Vec<u8>) {
    let (mut read, mut write) = TcpStream::connect(address).await.expect("connects").into_split();
    let speak = async {
        let mut sent = 0;
        for piece in said.chunks(1 << 14) {
            if write.write_all(piece).await.is_err() {
                break;
            }
            sent += piece.len();
        }
        let _ = write.shutdown().await;
        sent
    };
    let listen = async {
        let mut heard = Vec::new();
        let _ = read.read_to_end(&mut heard).await;
        heard
    };
    let both = async { tokio::join!(speak, listen) };
    tokio::time::timeout(Duration::from_secs(30), both).await.expect("the conversation ends")
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_OF_STREAM: u8 = 1;
const END_OF_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `GET http://a/`, as HPACK has it.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x01, 0x01, b'a'];

fn begun() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

#[tokio::test]
async fn damaged_requests_are_answered_or_dropped() {
    let (address, _shutdown) = listen().await;
    let get = frame(HEADERS, END_OF_STREAM | END_OF_HEADERS, 1, GET);
    let post =
        [frame(HEADERS, END_OF_HEADERS, 3, GET), frame(0, END_OF_STREAM, 3, b"body")].concat();
    let seeds = [
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_vec(),
        b"POST /a?b=c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n".to_vec(),
        b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\nhello".to_vec(),
        b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: x\r\n\r\n".to_vec(),
        [begun(), get, post].concat(),
    ];
    let (sender, mut inputs) = tokio::sync::mpsc::channel(1);
    // The campaign is synchronous and the conversation is not.
    let campaign = tokio::task::spawn_blocking(move || {
        campaign("requests", 400, |rng| {
            let (done, wait) = std::sync::mpsc::channel::<()>();
            sender.blocking_send((mutate::bytes(rng, &seeds), done)).expect("somebody listens");
            let _ = wait.recv();
        });
    });
    while let Some((said, done)) = inputs.recv().await {
        converse(address, &said).await;
        drop(done);
    }
    campaign.await.expect("no case failed");
    let (_, heard) =
        converse(address, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(heard.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&heard));
}

/// A flood is cut off long before it is over, or every frame of it is answered.
#[tokio::test]
async fn floods_of_frames_are_cut_off() {
    let (address, _shutdown) = listen().await;
    let header = [&[0x00, 1, b'x', 0x7f, 0x80, 0x7e][..], &[b'y'; 16_000]].concat();
    let headers =
        [frame(HEADERS, 0, 1, GET), frame(CONTINUATION, 0, 1, &header[..16_000]).repeat(4000)]
            .concat();
    let empty =
        [frame(HEADERS, 0, 1, GET), frame(CONTINUATION, 0, 1, &[]).repeat(4_000_000)].concat();
    let resets: Vec<u8> = (0..1_000_000_u32)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            [
                frame(HEADERS, END_OF_STREAM | END_OF_HEADERS, stream, GET),
                frame(RESET, 0, stream, &[0, 0, 0, 8]),
            ]
            .concat()
        })
        .collect();
    for (name, flood) in [("headers", headers), ("empty continuations", empty), ("resets", resets)]
    {
        let said = [begun(), flood].concat();
        let (sent, _) = converse(address, &said).await;
        println!("{name}: {sent} of {}", said.len());
        assert!(sent < said.len(), "{name}: all {sent} bytes were taken");
    }
    let said = [
        begun(),
        frame(PING, 0, 0, &[0; 8]).repeat(20_000),
        frame(SETTINGS, 0, 0, &[]).repeat(20_000),
    ]
    .concat();
    let (_, heard) = converse(address, &said).await;
    assert!(heard.len() < 2 * said.len(), "{}", heard.len());
    let (_, heard) =
        converse(address, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(heard.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&heard));
}
