//! Leader election against a Lease server in this process: one leader at a time, quick release,
//! takeover when the leader falls silent.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use skiff_client::{Election, LeaderElection, in_process};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Stores one Lease; a candidate that is cut off gets no answers.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<(Option<Value>, u64)>>,
}

impl Server {
    fn client(&self, cut: Arc<AtomicBool>) -> kube::Client {
        let server = self.clone();
        in_process(
            tower::service_fn(move |request| {
                let (server, cut) = (server.clone(), cut.clone());
                async move {
                    if cut.load(Ordering::SeqCst) {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, Infallible>(server.answer(request).await)
                }
            }),
            (),
        )
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.expect("body").to_bytes();
        let mut stored = self.lease.lock().expect("lock");
        let known = stored.0.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
        if parts.method == Method::GET {
            return match &stored.0 {
                Some(lease) => answer(StatusCode::OK, lease),
                None => refuse(404, "NotFound"),
            };
        }
        let mut lease: Value = serde_json::from_slice(&body).expect("JSON");
        match (&parts.method, known) {
            (&Method::POST, Some(_)) => return refuse(409, "AlreadyExists"),
            (&Method::PUT, known)
                if known.as_ref() != Some(&lease["metadata"]["resourceVersion"]) =>
            {
                return refuse(409, "Conflict");
            }
            _ => {}
        }
        stored.1 += 1;
        lease["metadata"]["resourceVersion"] = json!(stored.1.to_string());
        stored.0 = Some(lease.clone());
        answer(StatusCode::OK, &lease)
    }
}

fn answer(code: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = code;
    response
}

fn refuse(code: u16, reason: &str) -> Response<Full<Bytes>> {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": reason });
    answer(StatusCode::from_u16(code).expect("a code"), &status)
}

struct Candidate {
    cut: Arc<AtomicBool>,
    shutdown: CancellationToken,
}

fn candidate(
    name: &'static str,
    server: &Server,
    leading: &Arc<AtomicUsize>,
    elected: &mpsc::UnboundedSender<&'static str>,
) -> Candidate {
    let cut = Arc::new(AtomicBool::new(false));
    let shutdown = CancellationToken::new();
    let election = Election {
        lease: Duration::from_secs(1),
        renew: Duration::from_millis(500),
        retry: Duration::from_millis(50),
        ..Election::new("kube-system", "test", name)
    };
    let candidate = LeaderElection::new(server.client(cut.clone()), election);
    let (leading, elected, until) = (leading.clone(), elected.clone(), shutdown.clone());
    tokio::spawn(candidate.run(until, move |term| {
        let (leading, elected) = (leading.clone(), elected.clone());
        async move {
            assert_eq!(leading.fetch_add(1, Ordering::SeqCst), 0, "two leaders");
            elected.send(name).expect("test listens");
            term.cancelled().await;
            leading.fetch_sub(1, Ordering::SeqCst);
        }
    }));
    Candidate { cut, shutdown }
}

/// On virtual time: however slow the machine, all candidates are equally slow.
#[tokio::test(start_paused = true)]
async fn one_leads_at_a_time() {
    let server = Server::default();
    let leading = Arc::new(AtomicUsize::new(0));
    let (elected, mut elections) = mpsc::unbounded_channel();
    let first = candidate("first", &server, &leading, &elected);
    assert_eq!(elections.recv().await, Some("first"));
    let second = candidate("second", &server, &leading, &elected);

    // The leader cannot renew: it stops before another starts.
    first.cut.store(true, Ordering::SeqCst);
    assert_eq!(elections.recv().await, Some("second"));

    // The leader leaves: the lease is free at once.
    first.cut.store(false, Ordering::SeqCst);
    second.shutdown.cancel();
    assert_eq!(elections.recv().await, Some("first"));
    first.shutdown.cancel();
}
