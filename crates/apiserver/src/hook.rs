//! Questions posted to others over HTTPS: the one client behind all webhooks and issuers of tokens.
//!
//! Refuses to know what is asked.

use std::{path::Path, time::Duration};

use http::{Method, Request, header};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

/// The longest answer, in bytes.
const MOST: usize = 4 * 1024 * 1024;

/// Somebody who answers.
#[derive(Clone)]
pub struct Hook {
    client: kube::Client,
    path: String,
    timeout: Duration,
}

/// Why there is nobody to ask.
#[derive(Debug, thiserror::Error)]
#[error("webhook of {place}: {why}")]
pub struct HookError {
    place: String,
    why: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// None came in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection failed.
    #[error("{0}")]
    Failed(String),
    /// It was refused.
    #[error("answered {0}")]
    Refused(u16),
    /// It is too large.
    #[error("the answer is too large")]
    TooLarge,
}

impl Hook {
    /// Who is described by a kubeconfig: the server's URL is where questions go.
    ///
    /// # Errors
    /// When the file cannot be read or used.
    pub async fn from_kubeconfig(path: &Path, timeout: Duration) -> Result<Self, HookError> {
        let fail = |why: String| HookError { place: path.display().to_string(), why };
        let file = Kubeconfig::read_from(path).map_err(|error| fail(error.to_string()))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        Self::new(config.map_err(|error| fail(error.to_string()))?, timeout).map_err(fail)
    }

    /// Who is found at a URL, trusted by these authorities (PEM) or, without any, by the system's.
    ///
    /// # Errors
    /// When the URL or the authorities cannot be used.
    pub(crate) fn at(
        url: &str,
        authority: Option<&str>,
        timeout: Duration,
    ) -> Result<Self, HookError> {
        let fail = |why: String| HookError { place: url.to_owned(), why };
        let mut config = Config::new(url.parse().map_err(|_| fail("it is no URL".into()))?);
        if let Some(pem) = authority {
            use rustls::pki_types::{CertificateDer, pem::PemObject};
            let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            let read = read.map_err(|error| fail(error.to_string()))?;
            config.root_cert = Some(read.iter().map(|der| der.to_vec()).collect());
        }
        Self::new(config, timeout).map_err(fail)
    }

    fn new(mut config: Config, timeout: Duration) -> Result<Self, String> {
        // The client joins paths to its URL; with the path apart, the question's own is whole.
        let mut parts = config.cluster_url.clone().into_parts();
        let path = parts.path_and_query.replace("/".parse().map_err(|_| "no path".to_owned())?);
        config.cluster_url = http::Uri::from_parts(parts).map_err(|error| error.to_string())?;
        config.connect_timeout = Some(timeout);
        config.read_timeout = Some(timeout);
        config.write_timeout = Some(timeout);
        let client = kube::Client::try_from(config).map_err(|error| error.to_string())?;
        let path = path.map_or_else(|| "/".to_owned(), |path| path.to_string());
        Ok(Self { client, path, timeout })
    }

    /// Posts JSON; the answer's body.
    ///
    /// # Errors
    /// When there is no answer, or a refusal.
    pub(crate) async fn post(&self, body: Vec<u8>) -> Result<Vec<u8>, AskError> {
        self.ask(Method::POST, &self.path, body).await
    }

    /// Reads the document at the hook's own URL.
    ///
    /// # Errors
    /// When there is no answer, or a refusal.
    pub(crate) async fn get(&self) -> Result<Vec<u8>, AskError> {
        self.ask(Method::GET, &self.path, Vec::new()).await
    }

    async fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Vec<u8>, AskError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(kube::client::Body::from(body))
            .map_err(|error| AskError::Failed(error.to_string()))?;
        let asked = async {
            let answer = self.client.send(request).await;
            let answer = answer.map_err(|error| AskError::Failed(chain(&error)))?;
            let (head, body) = answer.into_parts();
            if !head.status.is_success() {
                return Err(AskError::Refused(head.status.as_u16()));
            }
            let body = serve::Body::boxed(body).read(MOST).await;
            body.map(|bytes| bytes.to_vec()).map_err(|error| match error {
                serve::body::ReadError::TooLarge { .. } => AskError::TooLarge,
                serve::body::ReadError::Broken(why) => AskError::Failed(why.to_string()),
            })
        };
        let late = AskError::Timeout(self.timeout);
        tokio::time::timeout(self.timeout, asked).await.map_err(|_| late)?
    }
}

/// An error with all that led to it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}
