//! The bare server: hyper and rustls as skiff uses them, and nothing behind them. It runs as a
//! process of its own, as skiff does, so that both share the processors with the load generator alike.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, Response};
use pki::{Authority, Profile};
use serve::tls::{Certificate, ServerTls};
use serve::{Body, Server, ServerOptions};
use testkit::Cluster;
use tokio_util::sync::CancellationToken;

use crate::endpoint::Endpoint;

/// A bare server in the network of a cluster; it ends when dropped.
pub(crate) struct Bare {
    process: Child,
    kubeconfig: PathBuf,
    _directory: tempfile::TempDir,
}

impl Bare {
    /// Starts a bare server that answers `/one` and `/all` with these bytes.
    pub(crate) fn start(cluster: &Cluster, one: &[u8], all: &[u8]) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("make a directory")?;
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("one"), one)?;
        std::fs::write(at("all"), all)?;
        let this = std::env::current_exe().context("find this executable")?;
        let mut command = cluster.namespace().command(this);
        command.arg("bare").arg("--kubeconfig").arg(at("kubeconfig"));
        command.arg("--one").arg(at("one")).arg("--all").arg(at("all"));
        let mut process = command.stdin(Stdio::piped()).spawn().context("start the bare server")?;
        while !at("kubeconfig").exists() {
            ensure!(process.try_wait()?.is_none(), "the bare server ended");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(Self { process, kubeconfig: at("kubeconfig"), _directory: directory })
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> anyhow::Result<Endpoint> {
        Endpoint::from_kubeconfig(&self.kubeconfig)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs the bare server until standard input ends. The kubeconfig appears once it listens.
pub(crate) fn serve(kubeconfig: &Path, one: &Path, all: &Path) -> anyhow::Result<()> {
    let read = |path: &Path| std::fs::read(path).map(Bytes::from).context("read a body");
    let (one, all) = (read(one)?, read(all)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (server, text) = listen().await?;
        let partial = kubeconfig.with_extension("partial");
        pki::write_private(&partial, text.as_bytes())?;
        std::fs::rename(&partial, kubeconfig).context("write the kubeconfig")?;
        let shutdown = CancellationToken::new();
        let end = shutdown.clone();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read(&mut [0]);
            end.cancel();
        });
        server.run(handler(one, all), shutdown).await;
        anyhow::Ok(())
    })
}

/// A server that listens on loopback, and the kubeconfig of a client that it trusts.
async fn listen() -> anyhow::Result<(Server, String)> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let authority = Authority::load_or_create(directory.path(), "ca")?;
    let address = std::net::IpAddr::from([127, 0, 0, 1]);
    let own = authority.issue(&Profile::server("bare", Vec::new(), vec![address]))?;
    let certificate = Certificate::new(own.chain()?, own.private_key()?)?;
    let tls = ServerTls::new(certificate, Some(&[authority.certificate_der()?]))?;
    let server = Server::bind((address, 0).into(), Some(tls), ServerOptions::default()).await?;
    let url = format!("https://{}", server.local_address()?);
    let client = authority.issue(&Profile::client("load", None))?;
    Ok((server, pki::kubeconfig("bare", &url, authority.certificate(), &client)))
}

fn handler(one: Bytes, all: Bytes) -> impl serve::Handler {
    move |request: Request<Body>| {
        let body = if request.uri().path() == "/all" { &all } else { &one };
        std::future::ready(answer(body.clone()))
    }
}

fn answer(body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::{self, Load};
    use crate::wire::request;

    #[tokio::test]
    async fn a_load_is_counted_whole() {
        let (server, kubeconfig) = listen().await.expect("listens");
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig).expect("written");
        let endpoint = Endpoint::from_kubeconfig(&path).expect("a kubeconfig");
        let shutdown = CancellationToken::new();
        let bodies = handler(Bytes::from_static(b"12345"), Bytes::from(vec![b'x'; 1 << 20]));
        let running = tokio::spawn(server.run(bodies, shutdown.clone()));
        let load = Load { connections: 3, duration: Duration::from_secs(60), requests: 50 };
        let mut outcome = load::run(&endpoint, load, |number| {
            request("GET", if number == 0 { "/all" } else { "/one" }, "")
        })
        .await
        .expect("answers");
        assert_eq!((outcome.requests(), outcome.bytes), (50, 49 * 5 + (1 << 20)));
        assert!(outcome.rate() > 0.0 && outcome.percentile(50) <= outcome.percentile(99));
        shutdown.cancel();
        running.await.expect("ends");
    }
}
