//! Whom a certificate names.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::Profile;

/// The subject of a certificate: a user and its groups, in Kubernetes' reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Common name.
    pub common_name: String,
    /// Organizations, in the certificate's order.
    pub organizations: Vec<String>,
}

impl Subject {
    /// Reads the subject of a certificate; `None` when it is no X.509 certificate.
    pub fn parse(certificate: &CertificateDer<'_>) -> Option<Self> {
        X509Certificate::from_der(certificate).ok().map(|(_, certificate)| Self::of(&certificate))
    }

    /// When a certificate's time is over, in seconds since 1970; `None` when it is no X.509 certificate.
    pub fn expiry(certificate: &CertificateDer<'_>) -> Option<i64> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Some(certificate.validity().not_after.timestamp())
    }

    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        Self::of_name(certificate.subject())
    }

    pub(crate) fn of_name(subject: &X509Name<'_>) -> Self {
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            value.as_str().ok().map(str::to_owned)
        };
        Self {
            common_name: subject.iter_common_name().find_map(text).unwrap_or_default(),
            organizations: subject.iter_organization().filter_map(text).collect(),
        }
    }
}

impl From<&Profile> for Subject {
    fn from(profile: &Profile) -> Self {
        Self {
            common_name: profile.common_name.clone(),
            organizations: profile.organization.iter().cloned().collect(),
        }
    }
}
