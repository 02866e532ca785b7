//! The drain: what is under way is finished, who is idle is closed, who comes is served.

use std::io::{BufRead, BufReader, Write};
use std::sync::mpsc;

use super::*;

struct Running {
    address: SocketAddr,
    stop: mpsc::Sender<()>,
    done: thread::JoinHandle<Result<u8, String>>,
}

fn start(drain: u64, connections: usize) -> Running {
    let mut options = Options::from_environment(&[]).unwrap();
    options.port = 0;
    options.drain = Duration::from_millis(drain);
    options.max_connections = connections;
    let server = Server::bind(options).unwrap();
    let address = server.address();
    let (stop, stopped) = mpsc::channel();
    let done = thread::spawn(move || {
        server.run_until(move || {
            let _ = stopped.recv();
        })
    });
    Running { address, stop, done }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
    }

    /// Code, `Connection` and body of the next answer; `None` at the end of the connection.
    fn receive(&mut self) -> Option<(u16, String, String)> {
        let mut line = String::new();
        if self.0.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        let code = line.split(' ').nth(1).unwrap().parse().unwrap();
        let (mut length, mut connection) = (0, String::new());
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim().split_once(": ") else { break };
            match name {
                "Content-Length" => length = value.parse().unwrap(),
                "Connection" => connection = value.to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        Some((code, connection, String::from_utf8(body).unwrap()))
    }

    fn get(&mut self, path: &str) -> Option<(u16, String, String)> {
        self.send(path);
        self.receive()
    }
}

#[test]
fn serves_pages_on_a_kept_connection() {
    let running = start(0, 8);
    let mut client = Client::new(running.address);
    let (code, connection, body) = client.get("/").unwrap();
    assert_eq!((code, connection.as_str()), (200, "keep-alive"));
    assert!(body.starts_with("website "), "{body}");
    assert_eq!(client.get("/healthz").unwrap().0, 200);
    assert_eq!(client.get("/readyz").unwrap().0, 200);
    assert_eq!(client.get("/fail?readyz=true").unwrap().0, 200);
    assert_eq!(client.get("/readyz").unwrap().0, 503);
    assert_eq!(client.get("/work?ms=1").unwrap().0, 200);
    assert_eq!(client.get("/work?ms=x").unwrap().0, 400);
    assert_eq!(client.get("/nowhere").unwrap().0, 404);
    running.stop.send(()).unwrap();
    assert_eq!(running.done.join().unwrap(), Ok(0));
}

#[test]
fn finishes_requests_and_closes_idle_connections() {
    let running = start(0, 8);
    let mut idle = Client::new(running.address);
    idle.get("/healthz").unwrap();
    let mut slow = Client::new(running.address);
    slow.get("/healthz").unwrap();
    slow.send("/slow?ms=2000");
    let mut probe = Client::new(running.address);
    assert_eq!(probe.get("/readyz").unwrap().0, 200);
    running.stop.send(()).unwrap();
    // The idle connection ends; the slow request is answered, then its connection ends.
    assert_eq!(idle.receive(), None);
    let (code, connection, _) = slow.receive().unwrap();
    assert_eq!((code, connection.as_str()), (200, "close"));
    assert_eq!(slow.receive(), None);
    assert_eq!(running.done.join().unwrap(), Ok(0));
}

#[test]
fn serves_newcomers_while_draining() {
    let running = start(4_000, 8);
    let mut kept = Client::new(running.address);
    kept.get("/healthz").unwrap();
    running.stop.send(()).unwrap();
    // Until the drain is over a kept connection and a new one each get one more answer.
    let mut fresh = loop {
        let mut fresh = Client::new(running.address);
        let (code, connection, _) = fresh.get("/readyz").unwrap();
        if code == 503 {
            assert_eq!(connection, "close");
            break fresh;
        }
    };
    assert_eq!(fresh.receive(), None);
    let (code, connection, _) = kept.get("/hostname").unwrap();
    assert_eq!((code, connection.as_str()), (200, "close"));
    drop(fresh);
    drop(kept);
    assert_eq!(running.done.join().unwrap(), Ok(0));
}

#[test]
fn bounds_its_connections() {
    let running = start(0, 1);
    let mut first = Client::new(running.address);
    first.get("/healthz").unwrap();
    let mut second = Client::new(running.address);
    second.send("/hostname");
    second.0.get_ref().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(second.0.fill_buf().is_err(), "served beyond its limit");
    drop(first);
    second.0.get_ref().set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(second.receive().unwrap().0, 200);
    drop(second);
    running.stop.send(()).unwrap();
    assert_eq!(running.done.join().unwrap(), Ok(0));
}
