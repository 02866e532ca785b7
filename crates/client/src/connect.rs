//! Making a `kube::Client`: straight into an API server in this process, or from a kubeconfig.
//!
//! Knows nothing of any particular API server or of its notion of a user.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Request, Response};
use kube::{
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::{BoxError, Service, ServiceExt};

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig could not be read or does not describe a cluster.
    #[error("kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// The kubeconfig's credentials or addresses cannot be used.
    #[error("client from kubeconfig {path}")]
    Client {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A client whose requests go to `service` without TCP or TLS.
///
/// Every request carries a clone of `user` in its extensions: the service finds there on whose
/// behalf it acts and authorizes as for any other request. Nothing that comes over a network can
/// set an extension.
pub fn in_process<S, B, U>(service: S, user: U) -> kube::Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    U: Clone + Send + Sync + 'static,
{
    let service = service.map_request(move |mut request: Request<Body>| {
        request.extensions_mut().insert(user.clone());
        request
    });
    kube::Client::new(service, "default")
}

/// A client from the current context of the kubeconfig at `path`.
pub async fn from_kubeconfig(path: &Path) -> Result<kube::Client, ConnectError> {
    let kubeconfig =
        |source| ConnectError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
    let file = Kubeconfig::read_from(path).map_err(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(kubeconfig)?;
    // Watches bound their own time; a shorter limit here would cut them.
    config.read_timeout = None;
    kube::Client::try_from(config)
        .map_err(|source| ConnectError::Client { path: path.to_owned(), source: Box::new(source) })
}
