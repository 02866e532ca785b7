//! TLS configurations of servers and clients, with certificates that can be replaced while running.
//!
//! Certificates are made and renewed elsewhere; this file only presents and checks them.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::ClientCertificate;

/// A certificate with its key that can be swapped while connections are being accepted or made.
#[derive(Debug)]
pub struct Certificate(RwLock<Option<Arc<CertifiedKey>>>);

impl Certificate {
    /// Takes a chain, leaf first, and its private key.
    ///
    /// # Errors
    /// When the key is of no supported kind or does not belong to the leaf.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Arc<Self>, rustls::Error> {
        Ok(Arc::new(Self(RwLock::new(Some(certified(chain, key)?)))))
    }

    /// Has nothing to present until it is given something: handshakes fail, or go on without.
    pub fn pending() -> Arc<Self> {
        Arc::new(Self(RwLock::new(None)))
    }

    /// Presents another certificate from the next handshake on.
    ///
    /// # Errors
    /// As [`Certificate::new`]; the old certificate then stays.
    pub fn replace(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), rustls::Error> {
        *self.0.write() = Some(certified(chain, key)?);
        Ok(())
    }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, rustls::Error> {
    CertifiedKey::from_der(chain, key, &provider()).map(Arc::new)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}

impl ResolvesClientCert for Certificate {
    fn resolve(
        &self,
        _issuers: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }

    fn has_certs(&self) -> bool {
        self.0.read().is_some()
    }
}

/// The server side of TLS: what it presents, and whose client certificates it trusts.
#[derive(Clone)]
pub struct ServerTls {
    pub(crate) config: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    front: Option<Arc<dyn ClientCertVerifier>>,
}

impl ServerTls {
    /// TLS 1.2 and 1.3 with HTTP/2 and HTTP/1.1. Client certificates are asked for where
    /// `client_authorities` is given, never required; one that does not verify leaves the
    /// connection standing, as [`ClientCertificate::Rejected`], so that the client can be told in
    /// HTTP.
    ///
    /// # Errors
    /// When an authority's certificate cannot be used.
    pub fn new(
        certificate: Arc<Certificate>,
        client_authorities: Option<&[CertificateDer<'static>]>,
    ) -> Result<Self, rustls::Error> {
        Self::with_front(certificate, client_authorities, None)
    }

    /// As [`ServerTls::new`], with authorities beside that vouch for proxies which speak for others
    /// ([`crate::Peer::front`]) and for nobody else.
    ///
    /// # Errors
    /// When an authority's certificate cannot be used.
    pub fn with_front(
        certificate: Arc<Certificate>,
        client_authorities: Option<&[CertificateDer<'static>]>,
        front_authorities: Option<&[CertificateDer<'static>]>,
    ) -> Result<Self, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?;
        let verifier = client_authorities.map(client_verifier).transpose()?;
        let front = front_authorities.map(client_verifier).transpose()?;
        // Clients choose what they show by the authorities they are told of: all of them.
        let all = [client_authorities, front_authorities].into_iter().flatten().flatten();
        let all: Vec<_> = all.cloned().collect();
        let builder = if all.is_empty() {
            builder.with_no_client_auth()
        } else {
            let hints = roots(&all)?.subjects();
            builder.with_client_cert_verifier(Arc::new(Possession(provider(), hints)))
        };
        let mut config = builder.with_cert_resolver(certificate);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), verifier, front })
    }

    /// The leaf of a peer that is a proxy which may speak for others.
    pub(crate) fn judge_front(
        &self,
        shown: Option<&[CertificateDer<'_>]>,
    ) -> Option<CertificateDer<'static>> {
        let (verifier, [leaf, intermediates @ ..]) = (self.front.as_ref()?, shown?) else {
            return None;
        };
        verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).ok()?;
        Some(leaf.clone().into_owned())
    }

    /// What the certificates that a peer showed are worth.
    pub(crate) fn judge(&self, shown: Option<&[CertificateDer<'_>]>) -> ClientCertificate {
        let (Some(verifier), Some([leaf, intermediates @ ..])) = (&self.verifier, shown) else {
            return ClientCertificate::None;
        };
        match verifier.verify_client_cert(leaf, intermediates, UnixTime::now()) {
            Ok(_) => ClientCertificate::Verified(
                std::iter::once(leaf)
                    .chain(intermediates)
                    .map(|der| der.clone().into_owned())
                    .collect(),
            ),
            Err(error) => ClientCertificate::Rejected(error.to_string()),
        }
    }
}

fn client_verifier(
    authorities: impl AsRef<[CertificateDer<'static>]>,
) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    let roots = Arc::new(roots(authorities.as_ref())?);
    WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
}

/// The client side of TLS: trusts `authorities`, presents `identity` where given.
///
/// # Errors
/// When an authority's certificate or the identity's key cannot be used.
pub fn client_config(
    authorities: &[CertificateDer<'static>],
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(authorities)?);
    Ok(Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
    }))
}

/// As [`client_config`], presenting what `certificate` holds at each handshake.
///
/// # Errors
/// When an authority's certificate cannot be used.
pub fn rotating_client_config(
    authorities: &[CertificateDer<'static>],
    certificate: Arc<Certificate>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(authorities)?)
        .with_client_cert_resolver(certificate);
    // A resumed session would still speak for the certificate that began it.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// The client side of TLS towards peers that nobody vouches for, such as a pod behind the API's proxy:
/// presents nothing and takes any certificate, as Kubernetes does there.
///
/// # Errors
/// When the library offers no protocol version.
pub fn unverified_client_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider())))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What verifiers of both sides say about signatures: whoever shows a certificate holds its key.
macro_rules! demands_the_key {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.0.signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.0.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Demands that a server holds the key of the certificate it shows, and nothing else.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    demands_the_key!();
}

fn roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    Ok(roots)
}

/// Demands that a peer holds the key of the certificate it shows, and leaves the chain of trust to
/// [`ServerTls::judge`].
#[derive(Debug)]
struct Possession(Arc<CryptoProvider>, Vec<DistinguishedName>);

impl ClientCertVerifier for Possession {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.1
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    demands_the_key!();
}
