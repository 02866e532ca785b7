//! The kubelet's HTTPS API: who may call, and which endpoint answers. Endpoints are one file each and get the shared
//! context and a request; they know nothing of connections.

mod auth;
mod container_logs;
mod containers;
mod metrics;
mod pods;
mod remote;
mod respond;
mod stats;
mod streams;

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use serve::{Body, Server, ServerOptions, tls::Certificate, tls::ServerTls};
use tokio_util::sync::CancellationToken;

use self::remote::Purpose;
use self::respond::{method_not_allowed, not_found, text};
use crate::{KubeletError, KubeletOptions, context::Context};

/// What the kubelet's API presents, and whose clients it listens to.
#[derive(Clone)]
pub struct ServerIdentity {
    /// The serving certificate; it may be exchanged while the kubelet runs.
    pub certificate: Arc<Certificate>,
    /// Authorities of client certificates.
    pub client_authorities: Vec<CertificateDer<'static>>,
}

/// The API, listening but not yet serving.
pub(crate) struct Listener {
    server: Server,
    port: u16,
}

/// Listens where the options say.
pub(crate) async fn bind(
    options: &KubeletOptions,
    identity: ServerIdentity,
) -> Result<Listener, KubeletError> {
    let tls = ServerTls::new(identity.certificate, Some(&identity.client_authorities))?;
    let server = Server::bind(options.listen, Some(tls), ServerOptions::default()).await?;
    let port = server.local_address().map_or(options.listen.port(), |address| address.port());
    Ok(Listener { server, port })
}

impl Listener {
    /// The port that is really listened on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Serves until `shutdown`.
    pub(crate) async fn run(self, context: Arc<Context>, shutdown: CancellationToken) {
        let reviews = Arc::new(auth::Reviews::default());
        let stop = shutdown.clone();
        let handler = move |request: Request<Body>| {
            let (context, reviews, stop) = (context.clone(), reviews.clone(), stop.clone());
            let question = auth::Question::of(&request);
            async move {
                match auth::check(&context, &reviews, question).await {
                    Ok(()) => route(context, request, stop).await,
                    Err(refusal) => refusal,
                }
            }
        };
        self.server.run(handler, shutdown).await;
    }
}

/// Finds the endpoint of a path.
async fn route(
    context: Arc<Context>,
    request: Request<Body>,
    shutdown: CancellationToken,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let read = matches!(*request.method(), Method::GET | Method::HEAD);
    match segments.as_slice() {
        ["healthz"] if read => text(StatusCode::OK, "ok"),
        ["pods"] if read => pods::list(&context),
        ["runningpods"] if read => pods::running(&context),
        ["metrics"] if read => metrics::kubelet(&context),
        ["metrics", "resource"] if read => metrics::resource(&context).await,
        ["stats", "summary"] if read => stats::summary(&context).await,
        ["containerLogs", namespace, pod, container] if read => {
            container_logs::serve(context, &request, namespace, pod, container, shutdown)
        }
        ["exec", target @ ..] => {
            streams::command(&context, Purpose::Exec, target, request, shutdown).await
        }
        ["attach", target @ ..] => {
            streams::command(&context, Purpose::Attach, target, request, shutdown).await
        }
        ["portForward", target @ ..] => streams::forward(&context, target, request, shutdown).await,
        ["healthz" | "pods" | "runningpods" | "metrics" | "stats" | "containerLogs", ..]
            if !read =>
        {
            method_not_allowed()
        }
        _ => not_found(),
    }
}
