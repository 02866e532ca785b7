//! A certificate authority on disk and the identities it issues.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::rand::fill;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, string::Ia5String,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::PkiError;
use crate::files::{read, write_private, write_public};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long an authority lives.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Certificates start to be valid this long ago, short-lived ones less: clocks of machines differ.
const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// To serve.
    Server,
    /// To authenticate to a server.
    Client,
    /// Both.
    Both,
}

/// What a certificate is to say.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Common name: the user, in Kubernetes.
    pub common_name: String,
    /// Organization: the group, in Kubernetes.
    pub organization: Option<String>,
    /// DNS names of a server.
    pub dns_names: Vec<String>,
    /// Addresses of a server.
    pub addresses: Vec<IpAddr>,
    /// What it may be used for.
    pub usage: Usage,
    /// How long it is valid from now.
    pub lifetime: Duration,
}

impl Profile {
    /// A client's certificate of a year.
    pub fn client(common_name: impl Into<String>, organization: Option<&str>) -> Self {
        Self {
            common_name: common_name.into(),
            organization: organization.map(str::to_owned),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            usage: Usage::Client,
            lifetime: 365 * DAY,
        }
    }

    /// A server's certificate of a year.
    pub fn server(
        common_name: impl Into<String>,
        dns_names: Vec<String>,
        addresses: Vec<IpAddr>,
    ) -> Self {
        Self { dns_names, addresses, usage: Usage::Server, ..Self::client(common_name, None) }
    }
}

/// A certificate with its private key, both as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate chain, leaf first.
    pub certificate: String,
    /// The private key, PKCS #8.
    pub key: String,
}

impl Identity {
    /// The chain as DER, leaf first.
    ///
    /// # Errors
    /// When the PEM is damaged.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, PkiError> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| PkiError::Key(format!("certificate chain: {error}")))
    }

    /// The private key as DER.
    ///
    /// # Errors
    /// When the PEM is damaged.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, PkiError> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|error| PkiError::Key(format!("private key: {error}")))
    }

    /// When a part of its life is over.
    ///
    /// # Errors
    /// When the PEM is damaged.
    pub fn at(&self, part: f64) -> Result<jiff::Timestamp, PkiError> {
        let (start, end) = self.validity()?;
        let life = end.duration_since(start);
        start.checked_add(life.mul_f64(part)).map_err(|error| PkiError::Key(error.to_string()))
    }

    /// The moment to have a new one: when seven to nine tenths of its life are over, at random, so
    /// that not everybody asks at once (upstream's rule).
    ///
    /// # Errors
    /// When the PEM is damaged.
    pub fn renew_at(&self) -> Result<jiff::Timestamp, PkiError> {
        let mut random = [0];
        fill(&mut random).map_err(|_| PkiError::Key("the kernel gives no random bytes".into()))?;
        self.at(0.7 + 0.2 * f64::from(random[0]) / 255.0)
    }

    /// From when to when it is valid.
    ///
    /// # Errors
    /// When the PEM is damaged.
    pub fn validity(&self) -> Result<(jiff::Timestamp, jiff::Timestamp), PkiError> {
        let chain = self.chain()?;
        let leaf = chain.first().ok_or_else(|| PkiError::Key("empty certificate chain".into()))?;
        let (_, leaf) = X509Certificate::from_der(leaf)
            .map_err(|error| PkiError::Key(format!("certificate: {error}")))?;
        let time = |time: x509_parser::time::ASN1Time| {
            jiff::Timestamp::from_second(time.timestamp())
                .map_err(|error| PkiError::Key(error.to_string()))
        };
        Ok((time(leaf.validity().not_before)?, time(leaf.validity().not_after)?))
    }

    /// Whether it names exactly whom and what `profile` names.
    pub fn covers(&self, profile: &Profile) -> bool {
        let Ok(chain) = self.chain() else { return false };
        let leaf = chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok());
        leaf.is_some_and(|(_, leaf)| {
            crate::Subject::of(&leaf) == crate::Subject::from(profile)
                && alternative_names(&leaf) == wanted_names(profile)
        })
    }

    /// Whom it names.
    ///
    /// # Errors
    /// When the PEM is damaged.
    pub fn subject(&self) -> Result<crate::Subject, PkiError> {
        let chain = self.chain()?;
        chain
            .first()
            .and_then(crate::Subject::parse)
            .ok_or_else(|| PkiError::Key("empty certificate chain".into()))
    }

    /// Reads a certificate and its key from one file; `None` where there is none.
    ///
    /// # Errors
    /// When it is there and holds no usable certificate and key.
    pub fn load(path: &Path) -> Result<Option<Self>, PkiError> {
        let Some(text) = read(path)? else { return Ok(None) };
        let damaged = || PkiError::Content { path: path.to_owned(), expected: "certificate" };
        let start = text.find("-----BEGIN CERTIFICATE").ok_or_else(damaged)?;
        let (key, certificate) = text.split_at(start);
        let identity = Self { certificate: certificate.to_owned(), key: key.to_owned() };
        identity.private_key().and(identity.validity()).map_err(|_| damaged())?;
        Ok(Some(identity))
    }

    /// Writes certificate and key to one file, so that there are always both of one pair.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), PkiError> {
        write_private(path, format!("{}{}", self.key, self.certificate).as_bytes())
    }
}

/// A certificate authority: its certificate, and the key to sign with.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// Reads `<directory>/<name>.key`, or makes an authority where there is none. The file holds the
    /// key and the certificate, so that a process killed while writing leaves both or nothing;
    /// `<name>.crt` is a copy of the certificate for others to read.
    ///
    /// # Errors
    /// When the key file is unreadable or damaged, or missing beside a certificate.
    pub fn load_or_create(directory: &Path, name: &str) -> Result<Self, PkiError> {
        let (certificate, key) =
            (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")));
        let copy = read(&certificate)?;
        let authority = match read(&key)? {
            Some(text) => Self::parse(&key, &text)?,
            None if copy.is_some() => {
                return Err(PkiError::Content { path: key, expected: "private key" });
            }
            None => {
                let authority = Self::create(name)?;
                let both =
                    format!("{}{}", authority.issuer.key().serialize_pem(), authority.certificate);
                write_private(&key, both.as_bytes())?;
                authority
            }
        };
        if copy.as_deref() != Some(authority.certificate()) {
            write_public(&certificate, authority.certificate.as_bytes())?;
        }
        Ok(authority)
    }

    /// Reads the key, and the certificate behind it.
    fn parse(path: &Path, text: &str) -> Result<Self, PkiError> {
        let damaged = |expected| PkiError::Content { path: path.to_owned(), expected };
        let pair = KeyPair::from_pem(text).map_err(|_| damaged("private key"))?;
        let start = text.find("-----BEGIN CERTIFICATE").ok_or_else(|| damaged("certificate"))?;
        let certificate = text[start..].to_owned();
        // Signing the parameters again with the same key gives the same issuer; what is handed out
        // is the certificate that everybody already trusts.
        let parameters = parameters(&common_name(path, &certificate)?);
        let issuer =
            CertifiedIssuer::self_signed(parameters, pair).map_err(|_| damaged("private key"))?;
        Ok(Self { issuer, certificate })
    }

    fn create(name: &str) -> Result<Self, PkiError> {
        let common_name = format!("skiff-{name}@{}", jiff::Timestamp::now().as_second());
        let failed = |source| PkiError::Issue { name: common_name.clone(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let issuer = CertifiedIssuer::self_signed(parameters(&common_name), key).map_err(failed)?;
        let certificate = issuer.pem();
        Ok(Self { issuer, certificate })
    }

    pub(crate) fn issuer(&self) -> &CertifiedIssuer<'static, KeyPair> {
        &self.issuer
    }

    /// The authority's certificate as PEM: what clients trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The authority's certificate as DER.
    ///
    /// # Errors
    /// When the file it was read from is damaged.
    pub fn certificate_der(&self) -> Result<CertificateDer<'static>, PkiError> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .map_err(|error| PkiError::Key(format!("authority certificate: {error}")))
    }

    /// Makes a key and signs a certificate for it.
    ///
    /// # Errors
    /// When a name in `profile` cannot stand in a certificate.
    pub fn issue(&self, profile: &Profile) -> Result<Identity, PkiError> {
        let failed = |source| PkiError::Issue { name: profile.common_name.clone(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let certificate =
            leaf(profile).map_err(failed)?.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Reads the identity in `<directory>/<name>.crt` and `.key`, or issues and writes it where it
    /// is missing, another authority's, about to expire, or does not say what `profile` says.
    ///
    /// # Errors
    /// When files cannot be read or written, or the certificate not be made.
    pub fn identity(
        &self,
        directory: &Path,
        name: &str,
        profile: &Profile,
    ) -> Result<Identity, PkiError> {
        let (certificate, key) = files(directory, name);
        if let (Some(certificate), Some(key)) = (read(&certificate)?, read(&key)?) {
            let found = Identity { certificate, key };
            if self.still_good(&found, profile) {
                return Ok(found);
            }
        }
        self.renew(directory, name, profile)
    }

    /// As [`Authority::identity`], and always a new one.
    ///
    /// # Errors
    /// When files cannot be written, or the certificate not be made.
    pub fn renew(
        &self,
        directory: &Path,
        name: &str,
        profile: &Profile,
    ) -> Result<Identity, PkiError> {
        let (certificate, key) = files(directory, name);
        let identity = self.issue(profile)?;
        write_private(&key, identity.key.as_bytes())?;
        write_public(&certificate, identity.certificate.as_bytes())?;
        Ok(identity)
    }

    fn still_good(&self, identity: &Identity, profile: &Profile) -> bool {
        let (Ok(chain), Ok(_), Ok(renew)) =
            (identity.chain(), identity.private_key(), identity.at(0.7))
        else {
            return false;
        };
        let (Some(leaf), Ok(authority)) = (chain.first(), self.certificate_der()) else {
            return false;
        };
        let (Ok((_, leaf)), Ok((_, authority))) =
            (X509Certificate::from_der(leaf), X509Certificate::from_der(&authority))
        else {
            return false;
        };
        renew > jiff::Timestamp::now()
            && leaf.verify_signature(Some(authority.public_key())).is_ok()
            && identity.covers(profile)
    }
}

/// Where an identity's certificate and key are kept.
fn files(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")))
}

fn common_name(path: &Path, pem: &str) -> Result<String, PkiError> {
    let damaged = || PkiError::Content { path: path.to_owned(), expected: "certificate" };
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| damaged())?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| damaged())?;
    Ok(crate::Subject::of(&certificate).common_name)
}

fn parameters(common_name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = name(common_name, None);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    valid(&mut parameters, AUTHORITY_LIFETIME);
    parameters
}

fn leaf(profile: &Profile) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = name(&profile.common_name, profile.organization.as_deref());
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    parameters.extended_key_usages = match profile.usage {
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Both => {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        }
    };
    parameters.subject_alt_names = sans(profile)?;
    valid(&mut parameters, profile.lifetime);
    Ok(parameters)
}

/// The alternative names of a profile.
pub(crate) fn sans(profile: &Profile) -> Result<Vec<SanType>, rcgen::Error> {
    let mut names = Vec::new();
    for dns in &profile.dns_names {
        names.push(SanType::DnsName(Ia5String::try_from(dns.as_str())?));
    }
    names.extend(profile.addresses.iter().copied().map(SanType::IpAddress));
    Ok(names)
}

pub(crate) fn name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

pub(crate) fn valid(parameters: &mut CertificateParams, lifetime: Duration) {
    let now = OffsetDateTime::now_utc();
    parameters.not_before = now - BACKDATE.min(lifetime / 10);
    parameters.not_after = now + lifetime;
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut names: Vec<String> = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .into_iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(dns) => Some((*dns).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        })
        .collect();
    names.sort();
    names
}

/// An address as it stands in a certificate.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
    four.or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}

fn wanted_names(profile: &Profile) -> Vec<String> {
    let mut names = profile.dns_names.clone();
    names.extend(profile.addresses.iter().map(ToString::to_string));
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_and_its_identities_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(directory.path(), "ca").unwrap();
        let profile =
            Profile::server("api", vec!["kubernetes".into()], vec!["10.96.0.1".parse().unwrap()]);
        let first = authority.identity(directory.path(), "api", &profile).unwrap();
        let again = Authority::load_or_create(directory.path(), "ca").unwrap();
        assert_eq!(authority.certificate(), again.certificate());
        assert_eq!(
            first.certificate,
            again.identity(directory.path(), "api", &profile).unwrap().certificate
        );
        let other = Profile { addresses: vec!["10.96.0.2".parse().unwrap()], ..profile };
        assert_ne!(
            first.certificate,
            again.identity(directory.path(), "api", &other).unwrap().certificate
        );
    }

    #[test]
    fn another_authoritys_identity_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let profile = Profile::client("admin", Some("system:masters"));
        let one = Authority::create("one")
            .unwrap()
            .identity(directory.path(), "admin", &profile)
            .unwrap();
        let two = Authority::create("two")
            .unwrap()
            .identity(directory.path(), "admin", &profile)
            .unwrap();
        assert_ne!(one.certificate, two.certificate);
        let subject = crate::Subject::parse(&two.chain().unwrap()[0]).unwrap();
        assert_eq!(subject.common_name, "admin");
        assert_eq!(subject.organizations, ["system:masters"]);
    }

    #[test]
    fn a_lost_copy_is_written_again_and_a_lost_key_refused() {
        let directory = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(directory.path(), "ca").unwrap();
        std::fs::remove_file(directory.path().join("ca.crt")).unwrap();
        let again = Authority::load_or_create(directory.path(), "ca").unwrap();
        let copy = std::fs::read_to_string(directory.path().join("ca.crt")).unwrap();
        assert_eq!(
            (again.certificate(), copy.as_str()),
            (first.certificate(), first.certificate())
        );
        std::fs::remove_file(directory.path().join("ca.key")).unwrap();
        let refused = Authority::load_or_create(directory.path(), "ca");
        assert!(matches!(refused, Err(PkiError::Content { .. })));
    }

    #[test]
    fn keys_are_for_root_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        Authority::load_or_create(directory.path(), "ca").unwrap();
        let mode = std::fs::metadata(directory.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
