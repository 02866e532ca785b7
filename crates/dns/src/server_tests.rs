//! The server on loopback sockets, with a resolver beside it that counts what it is asked.

use std::net::Ipv4Addr;

use client::{Change, ObjectKey};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use serde_json::json;

use super::*;
use crate::catalog::Catalog;

/// A resolver that answers every question with one address, or never.
async fn resolver(answers: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    let address = socket.local_addr().expect("address");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::Relaxed);
            let question = Message::from_vec(&buffer[..length]).expect("question");
            let mut message = Message::response(question.metadata.id, OpCode::Query);
            message.metadata.recursion_available = true;
            let query = question.queries[0].clone();
            let data = RData::A(A(Ipv4Addr::new(192, 0, 2, 7)));
            message.add_answer(Record::from_rdata(query.name().clone(), 60, data));
            message.add_query(query);
            if answers {
                let bytes = message.to_vec().expect("bytes");
                socket.send_to(&bytes, peer).await.expect("send");
            }
        }
    });
    (address, asked)
}

struct Running {
    udp: SocketAddr,
    tcp: SocketAddr,
    desk: Arc<Desk>,
    _tasks: JoinSet<()>,
}

async fn start(resolvers: &[SocketAddr]) -> Running {
    let mut catalog = Catalog::default();
    for (name, spec) in [
        ("web", json!({"clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"]})),
        ("out", json!({"type": "ExternalName", "externalName": "db.example.com"})),
        ("many", json!({"clusterIP": "None", "clusterIPs": ["None"]})),
    ] {
        let service = json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec});
        let service = serde_json::from_value(service).expect("service");
        let key = ObjectKey::namespaced("shop", name);
        catalog.take_service(Change { key, before: None, after: Some(Arc::new(service)) });
    }
    let endpoints: Vec<_> =
        (0..200).map(|n| json!({"addresses": [format!("10.244.1.{n}")]})).collect();
    let slice = serde_json::from_value(json!({
        "metadata": {"labels": {"kubernetes.io/service-name": "many"}},
        "addressType": "IPv4", "endpoints": endpoints,
    }));
    let key = ObjectKey::namespaced("shop", "many-1");
    let after = Some(Arc::new(slice.expect("slice")));
    catalog.take_slice(Change { key, before: None, after });
    let desk = Arc::new(Desk {
        zone: Zone::new("cluster.local", vec!["10.96.0.10".parse().expect("address")], Vec::new())
            .expect("zone"),
        catalog: RwLock::new(catalog),
        generation: AtomicU64::new(0),
        searchers: RwLock::default(),
        complete: AtomicBool::new(true),
        forwarder: Forwarder::new(Upstreams::fixed(resolvers)),
        allow: vec!["10.244.0.0/16".parse().expect("network")],
        ours: vec!["10.244.0.1".parse().expect("address")],
        turn: AtomicUsize::new(0),
        metrics: Metrics::default(),
    });
    let any = "127.0.0.1:0".parse().expect("address");
    let (udp, tcp) = (udp(any).expect("UDP"), tcp(any).expect("TCP"));
    let addresses = (udp.local_addr().expect("address"), tcp.local_addr().expect("address"));
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_udp(desk.clone(), udp));
    tasks.spawn(serve_tcp(desk.clone(), tcp));
    Running { udp: addresses.0, tcp: addresses.1, desk, _tasks: tasks }
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("name"), kind));
    message.to_vec().expect("bytes")
}

async fn ask(server: &Running, name: &str, kind: RecordType) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    socket.send_to(&question(name, kind), server.udp).await.expect("send");
    let mut buffer = [0; 4096];
    let limit = Duration::from_secs(60);
    let received = tokio::time::timeout(limit, socket.recv(&mut buffer)).await;
    let length = received.expect("an answer").expect("receive");
    let message = Message::from_vec(&buffer[..length]).expect("message");
    assert_eq!(message.metadata.id, 77);
    assert!(message.metadata.recursion_available);
    message
}

fn texts(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[tokio::test]
async fn the_clusters_names_over_udp_and_tcp() {
    let server = start(&[]).await;
    let message = ask(&server, "web.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(texts(&message), ["10.96.0.20"]);
    assert!(message.metadata.authoritative);
    let message = ask(&server, "many.shop.svc.cluster.local.", RecordType::A).await;
    assert!(message.metadata.truncation);

    let mut stream = TcpStream::connect(server.tcp).await.expect("connect");
    for _ in 0..2 {
        let packet = question("many.shop.svc.cluster.local.", RecordType::A);
        let length = u16::try_from(packet.len()).expect("short").to_be_bytes();
        stream.write_all(&[&length, packet.as_slice()].concat()).await.expect("write");
        let length = stream.read_u16().await.expect("length");
        let mut reply = vec![0; usize::from(length)];
        stream.read_exact(&mut reply).await.expect("reply");
        assert_eq!(Message::from_vec(&reply).expect("message").answers.len(), 200);
    }
}

#[tokio::test]
async fn other_names_are_asked_for_once() {
    let (address, asked) = resolver(true).await;
    let server = start(&[address]).await;
    for _ in 0..3 {
        let message = ask(&server, "Example.com.", RecordType::A).await;
        assert_eq!(texts(&message), ["192.0.2.7"]);
        assert!(!message.metadata.authoritative);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let message = ask(&server, "out.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(texts(&message), ["db.example.com.", "192.0.2.7"]);
}

#[tokio::test]
async fn a_silent_resolver_is_passed_over() {
    let (silent, asked) = resolver(false).await;
    let (good, _) = resolver(true).await;
    let server = start(&[silent, good]).await;
    let message = ask(&server, "example.com.", RecordType::A).await;
    assert_eq!(texts(&message), ["192.0.2.7"]);
    let before = asked.load(Ordering::Relaxed);
    ask(&server, "example.org.", RecordType::A).await;
    assert_eq!(asked.load(Ordering::Relaxed), before, "the good one is asked first now");
}

#[tokio::test]
async fn failures_are_said() {
    let server = start(&[]).await;
    let message = ask(&server, "example.com.", RecordType::A).await;
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    server.desk.complete.store(false, Ordering::Release);
    let message = ask(&server, "web.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail, "not complete yet");
}

#[tokio::test]
async fn strangers_get_nothing() {
    let server = start(&[]).await;
    for (peer, allowed) in [
        ("127.0.0.1", true),
        ("10.244.3.4", true),
        ("10.244.0.1", true),
        ("192.0.2.9", false),
        ("::ffff:10.244.3.4", true),
        ("2001:db8::1", false),
    ] {
        assert_eq!(server.desk.allowed(peer.parse().expect("address")), allowed, "{peer}");
    }
}

#[test]
fn an_address_need_not_exist_to_be_listened_on() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let _guard = runtime.as_ref().expect("runtime").enter();
    let address = "192.0.2.77:0".parse().expect("address");
    udp(address).expect("UDP");
    tcp(address).expect("TCP");
}

/// Makes loopback, where the tests ask from, a pod of namespace `shop`.
fn ask_as_a_pod(server: &Running) {
    let pod = json!({"metadata": {"namespace": "shop", "name": "p"}, "spec": {"containers": []},
        "status": {"podIPs": [{"ip": "127.0.0.1"}]}});
    let after = Some(Arc::new(serde_json::from_value(pod).expect("pod")));
    let change = Change { key: ObjectKey::namespaced("shop", "p"), before: None, after };
    server.desk.searchers.write().expect("lock").take(&change);
}

#[tokio::test]
async fn a_search_path_costs_one_round_trip() {
    let (address, asked) = resolver(true).await;
    let server = start(&[address]).await;
    let first_of_path = "web.shop.shop.svc.cluster.local.";
    let message = ask(&server, first_of_path, RecordType::A).await;
    assert_eq!(message.metadata.response_code, ResponseCode::NXDomain, "not a pod's question");

    ask_as_a_pod(&server);
    let message = ask(&server, first_of_path, RecordType::A).await;
    assert_eq!(texts(&message), ["web.shop.svc.cluster.local.", "10.96.0.20"]);
    let message = ask(&server, first_of_path, RecordType::AAAA).await;
    assert_eq!(texts(&message), ["web.shop.svc.cluster.local."], "no such address, but the name");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    let message = ask(&server, "example.com.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(texts(&message), ["example.com.", "192.0.2.7"]);
    let message = ask(&server, "out.shop.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(texts(&message), ["out.shop.svc.cluster.local.", "db.example.com.", "192.0.2.7"]);
    let message = ask(&server, "nope.other.svc.cluster.local.", RecordType::A).await;
    assert_eq!(message.metadata.response_code, ResponseCode::NXDomain, "another's path");
}

#[tokio::test]
async fn stub_domains_have_resolvers_of_their_own() {
    let (usual, asked_usual) = resolver(true).await;
    let (stub, asked_stub) = resolver(true).await;
    let server = start(&[usual]).await;
    ask(&server, "host.corp.example.", RecordType::A).await;
    assert_eq!(asked_usual.load(Ordering::Relaxed), 1);
    let data = ("stubDomains".to_owned(), json!({"corp.example": [stub.to_string()]}).to_string());
    let (routes, problems) = Routes::read(&[data].into(), &[]);
    assert!(problems.is_empty(), "{problems:?}");
    server.desk.forwarder.set_routes(routes);
    ask(&server, "host.corp.example.", RecordType::A).await;
    ask(&server, "example.com.", RecordType::A).await;
    assert_eq!(asked_stub.load(Ordering::Relaxed), 1, "what was remembered is asked for again");
    assert_eq!(asked_usual.load(Ordering::Relaxed), 2);
    let mut registry = prometheus_client::registry::Registry::default();
    server.desk.metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
    assert!(text.contains("coredns_dns_requests_total{proto=\"udp\"} 3"), "{text}");
    assert!(text.contains("coredns_dns_responses_total{rcode=\"NOERROR\"} 3"), "{text}");
}
