//! Certificate signing requests (PKCS #10): making one, reading one, and signing it.
//!
//! Knows nothing of who may have which certificate.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType, SigningKey as _,
    SubjectPublicKeyInfo, string::Ia5String,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use x509_parser::prelude::{
    FromDer, GeneralName, ParsedExtension, X509Certificate, X509CertificationRequest,
};

use crate::authority::{self, Authority};
use crate::{PkiError, Profile, Subject};

/// A signing request whose signature is good: what it asks for, and for which key.
#[derive(Debug, Clone)]
pub struct SigningRequest {
    /// Whom the certificate is to name.
    pub subject: Subject,
    /// DNS names asked for.
    pub dns_names: Vec<String>,
    /// Addresses asked for.
    pub addresses: Vec<IpAddr>,
    /// Mail addresses asked for.
    pub emails: Vec<String>,
    /// URIs asked for.
    pub uris: Vec<String>,
    raw_subject: Vec<u8>,
    public_key: Vec<u8>,
}

impl SigningRequest {
    /// Reads a PEM block `CERTIFICATE REQUEST` and checks that its sender holds the key.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_pem(text: &[u8]) -> Result<Self, PkiError> {
        let bad = |what: &str| PkiError::Key(format!("certificate request: {what}"));
        let der = CertificateSigningRequestDer::from_pem_slice(text)
            .map_err(|error| bad(&error.to_string()))?;
        let (rest, request) =
            X509CertificationRequest::from_der(&der).map_err(|_| bad("not a PKCS #10 request"))?;
        if !rest.is_empty() {
            return Err(bad("more follows it"));
        }
        request.verify_signature().map_err(|_| bad("its signature does not belong to its key"))?;
        let info = &request.certification_request_info;
        let mut read = Self {
            subject: Subject::of_name(&info.subject),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            emails: Vec::new(),
            uris: Vec::new(),
            raw_subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => read.dns_names.push((*name).to_owned()),
                    GeneralName::RFC822Name(name) => read.emails.push((*name).to_owned()),
                    GeneralName::URI(name) => read.uris.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => read
                        .addresses
                        .push(authority::address(bytes).ok_or_else(|| bad("a bad address"))?),
                    _ => {}
                }
            }
        }
        Ok(read)
    }

    /// A name for the key, 32 hexadecimal digits: equal keys have equal names.
    pub fn key_name(&self) -> String {
        key_name(&self.public_key)
    }
}

fn key_name(public_key: &[u8]) -> String {
    hex(&digest::digest(&digest::SHA256, public_key).as_ref()[..16])
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A private key that is to have a certificate.
pub struct NewKey {
    pair: KeyPair,
}

impl NewKey {
    /// Makes a P-256 key.
    ///
    /// # Errors
    /// When the kernel gives no randomness.
    pub fn generate() -> Result<Self, PkiError> {
        let failed = |source| PkiError::Issue { name: "a new key".to_owned(), source };
        Ok(Self { pair: KeyPair::generate().map_err(failed)? })
    }

    /// Takes a key made before.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn from_pem(text: &str) -> Result<Self, PkiError> {
        let pair = KeyPair::from_pem(text)
            .map_err(|error| PkiError::Key(format!("private key: {error}")))?;
        Ok(Self { pair })
    }

    /// The private key, PKCS #8.
    pub fn to_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// As [`SigningRequest::key_name`].
    pub fn name(&self) -> String {
        key_name(&rcgen::PublicKeyData::subject_public_key_info(&self.pair))
    }

    /// Asks for a certificate that says what `profile` says, as PEM.
    ///
    /// # Errors
    /// When a name in `profile` cannot stand in a certificate.
    pub fn request(&self, profile: &Profile) -> Result<String, PkiError> {
        let failed = |source| PkiError::Issue { name: profile.common_name.clone(), source };
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name =
            authority::name(&profile.common_name, profile.organization.as_deref());
        parameters.subject_alt_names = authority::sans(profile).map_err(failed)?;
        parameters.serialize_request(&self.pair).map_err(failed)?.pem().map_err(failed)
    }
}

impl Authority {
    /// Signs a certificate for the subject, names and key of `request`. `usages` are those of the
    /// API's `CertificateSigningRequest`, such as `client auth`.
    ///
    /// # Errors
    /// When a usage is unknown, or the key or a name cannot stand in a certificate.
    pub fn sign(
        &self,
        request: &SigningRequest,
        usages: &[impl AsRef<str>],
        lifetime: Duration,
    ) -> Result<String, PkiError> {
        let failed = |source| PkiError::Issue { name: request.subject.common_name.clone(), source };
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.use_authority_key_identifier_extension = true;
        for usage in usages {
            add_usage(&mut parameters, usage.as_ref())?;
        }
        parameters.subject_alt_names = names(request).map_err(failed)?;
        authority::valid(&mut parameters, lifetime);
        let key = SubjectPublicKeyInfo::from_der(&request.public_key).map_err(failed)?;
        let certificate = parameters.signed_by(&key, self.issuer()).map_err(failed)?;
        let der = with_subject(certificate.der(), &request.raw_subject, self.issuer().key())?;
        Ok(pem("CERTIFICATE", &der))
    }
}

fn names(request: &SigningRequest) -> Result<Vec<SanType>, rcgen::Error> {
    let text = |name: &String| Ia5String::try_from(name.as_str());
    let mut names = Vec::new();
    for name in &request.dns_names {
        names.push(SanType::DnsName(text(name)?));
    }
    for name in &request.emails {
        names.push(SanType::Rfc822Name(text(name)?));
    }
    for name in &request.uris {
        names.push(SanType::URI(text(name)?));
    }
    names.extend(request.addresses.iter().copied().map(SanType::IpAddress));
    Ok(names)
}

fn add_usage(parameters: &mut CertificateParams, usage: &str) -> Result<(), PkiError> {
    use {ExtendedKeyUsagePurpose as Extended, KeyUsagePurpose as Key};
    let key = match usage {
        "signing" | "digital signature" => Some(Key::DigitalSignature),
        "content commitment" => Some(Key::ContentCommitment),
        "key encipherment" => Some(Key::KeyEncipherment),
        "key agreement" => Some(Key::KeyAgreement),
        "data encipherment" => Some(Key::DataEncipherment),
        "cert sign" => Some(Key::KeyCertSign),
        "crl sign" => Some(Key::CrlSign),
        "encipher only" => Some(Key::EncipherOnly),
        "decipher only" => Some(Key::DecipherOnly),
        _ => None,
    };
    if let Some(key) = key {
        if !parameters.key_usages.contains(&key) {
            parameters.key_usages.push(key);
        }
        return Ok(());
    }
    parameters.extended_key_usages.push(match usage {
        "any" => Extended::Any,
        "server auth" => Extended::ServerAuth,
        "client auth" => Extended::ClientAuth,
        "code signing" => Extended::CodeSigning,
        "email protection" | "s/mime" => Extended::EmailProtection,
        "timestamping" => Extended::TimeStamping,
        "ocsp signing" => Extended::OcspSigning,
        _ => return Err(PkiError::Key(format!("unrecognized usage values: {usage:?}"))),
    });
    Ok(())
}

/// The certificate with another subject, signed again. The library's names hold one value of each
/// kind; a Kubernetes user may be in several groups.
fn with_subject(certificate: &[u8], subject: &[u8], key: &KeyPair) -> Result<Vec<u8>, PkiError> {
    let damaged = || PkiError::Key("the certificate just made cannot be read".to_owned());
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| damaged())?;
    let tbs = parsed.tbs_certificate.as_ref();
    let content = content(tbs).ok_or_else(damaged)?;
    let old = parsed.subject().as_raw();
    // Both are parts of the same bytes.
    let start = (old.as_ptr() as usize).checked_sub(content.as_ptr() as usize);
    let (before, rest) =
        start.and_then(|start| content.split_at_checked(start)).ok_or_else(damaged)?;
    let after = rest.get(old.len()..).ok_or_else(damaged)?;
    let tbs = sequence(&[before, subject, after].concat());
    let signature = key
        .sign(&tbs)
        .map_err(|source| PkiError::Issue { name: "a signing request".to_owned(), source })?;
    let algorithm = algorithm(certificate).ok_or_else(damaged)?;
    // A bit string begins with the number of unused bits.
    let signature = tagged(0x03, &[&[0][..], &signature].concat());
    Ok(sequence(&[&tbs, algorithm, &signature].concat()))
}

/// The second element of a certificate: the algorithm of its signature.
fn algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let inner = content(certificate)?;
    let rest = inner.get(element(inner)?..)?;
    rest.get(..element(rest)?)
}

/// How long the DER element at the start of `bytes` is, and where its content begins.
fn measure(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = usize::from(*bytes.get(1)?);
    if first < 0x80 {
        return Some((2 + first, 2));
    }
    let digits = first & 0x7f;
    let length = bytes.get(2..2 + digits)?.iter().take(5).fold(0, |n, b| n << 8 | usize::from(*b));
    Some((2 + digits + length, 2 + digits))
}

fn element(bytes: &[u8]) -> Option<usize> {
    measure(bytes).map(|(length, _)| length)
}

fn content(bytes: &[u8]) -> Option<&[u8]> {
    let (end, start) = measure(bytes)?;
    bytes.get(start..end)
}

fn sequence(content: &[u8]) -> Vec<u8> {
    tagged(0x30, content)
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let mut bytes = vec![tag];
    match content.len() {
        short @ 0..=0x7f => bytes.push(u8::try_from(short).unwrap_or_default()),
        _ => {
            let digits: Vec<u8> = length.iter().copied().skip_while(|byte| *byte == 0).collect();
            bytes.push(0x80 | u8::try_from(digits.len()).unwrap_or_default());
            bytes.extend(digits);
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in encoded.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// The hash by which an authority is known: SHA-256 of its public key, in lower-case hexadecimal,
/// as kubeadm writes it after `sha256:`.
///
/// # Errors
/// When it is no certificate.
pub fn authority_hash(certificate: &CertificateDer<'_>) -> Result<String, PkiError> {
    let (_, certificate) = X509Certificate::from_der(certificate)
        .map_err(|error| PkiError::Key(format!("authority certificate: {error}")))?;
    Ok(hex(digest::digest(&digest::SHA256, certificate.public_key().raw).as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> (tempfile::TempDir, Authority) {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(directory.path(), "ca").unwrap();
        (directory, authority)
    }

    #[test]
    fn what_was_asked_for_is_signed() {
        let (_keep, authority) = authority();
        let key = NewKey::generate().unwrap();
        let address = "10.0.0.7".parse().unwrap();
        let profile = Profile {
            organization: Some("system:nodes".into()),
            ..Profile::server("system:node:b", vec!["b".into()], vec![address])
        };
        let request = SigningRequest::from_pem(key.request(&profile).unwrap().as_bytes()).unwrap();
        assert_eq!(request.subject, Subject::from(&profile));
        assert_eq!(
            (request.dns_names.as_slice(), request.addresses.as_slice()),
            (&["b".to_owned()][..], &[address][..])
        );
        assert_eq!(request.key_name(), key.name());
        let usages = ["server auth", "digital signature"];
        let text = authority.sign(&request, &usages, Duration::from_secs(3600)).unwrap();
        let der = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&der).unwrap();
        let issuer = authority.certificate_der().unwrap();
        let (_, issuer) = X509Certificate::from_der(&issuer).unwrap();
        leaf.verify_signature(Some(issuer.public_key())).unwrap();
        assert_eq!(Subject::of(&leaf), Subject::from(&profile));
        assert_eq!(leaf.public_key().raw, request.public_key);
    }

    #[test]
    fn several_groups_stay() {
        let (_keep, authority) = authority();
        // Two organizations, as `openssl req -subj /O=a/O=b/CN=jane` makes them.
        let mut request = SigningRequest::from_pem(
            NewKey::generate().unwrap().request(&Profile::client("jane", None)).unwrap().as_bytes(),
        )
        .unwrap();
        let attribute = |oid: u8, text: &str| {
            let value = tagged(0x0c, text.as_bytes());
            let pair = [&[0x06, 3, 0x55, 4, oid][..], &value].concat();
            tagged(0x31, &sequence(&pair))
        };
        let groups: Vec<String> = (0..20).map(|n| format!("group-{n}")).collect();
        let mut name: Vec<u8> = groups.iter().flat_map(|group| attribute(10, group)).collect();
        name.extend(attribute(3, "jane"));
        request.raw_subject = sequence(&name);
        let text = authority.sign(&request, &["client auth"], Duration::from_secs(60)).unwrap();
        let subject = Subject::parse(&CertificateDer::from_pem_slice(text.as_bytes()).unwrap());
        assert_eq!(subject, Some(Subject { common_name: "jane".into(), organizations: groups }));
    }

    #[test]
    fn a_foreign_key_is_refused() {
        let key = NewKey::generate().unwrap();
        let text = key.request(&Profile::client("jane", None)).unwrap();
        let mut der =
            CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).unwrap().to_vec();
        let at = der.windows(4).position(|window| window == b"jane").unwrap();
        der[at] = b'J';
        let forged = pem("CERTIFICATE REQUEST", &der);
        let error = SigningRequest::from_pem(forged.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("signature"), "{error}");
        assert!(SigningRequest::from_pem(b"hello").is_err());
    }
}
