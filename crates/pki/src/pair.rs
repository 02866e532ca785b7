//! Whether a certificate and a private key that somebody keeps together, in PEM, belong together. Decides
//! nothing about either alone, and keeps neither.

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};

/// What is wrong with a pair, in the words of Kubernetes' warnings.
pub fn pair_problem(certificate: &[u8], key: &[u8]) -> Option<String> {
    check(certificate, key).err()
}

fn check(certificate: &[u8], key: &[u8]) -> Result<(), String> {
    let is_certificate = |label: &str| label == "CERTIFICATE";
    let is_key = |label: &str| label == "PRIVATE KEY" || label.ends_with(" PRIVATE KEY");
    let der = first(certificate, is_certificate).map_err(|others| match &others[..] {
        [] => "tls: failed to find any PEM data in certificate input".to_owned(),
        [one] if is_key(one) => "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".to_owned(),
        _ => format!("tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]", others.join(" ")),
    })?;
    let secret = first(key, is_key).map_err(|others| match &others[..] {
        [] => "tls: failed to find any PEM data in key input".to_owned(),
        [one] if is_certificate(one) => "tls: found a certificate rather than a key in the PEM for the private key".to_owned(),
        _ => format!("tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]", others.join(" ")),
    })?;
    let parsed = X509Certificate::from_der(&der);
    let (_, parsed) = parsed.map_err(|_| "x509: malformed certificate".to_owned())?;
    let unusable = || "tls: failed to parse private key".to_owned();
    let secret = PrivateKeyDer::try_from(secret).map_err(|_| unusable())?;
    let secret = any_supported_type(&secret).map_err(|_| unusable())?;
    let own = secret.public_key().ok_or_else(unusable)?;
    if own.as_ref() == parsed.public_key().raw {
        return Ok(());
    }
    let (_, own) = SubjectPublicKeyInfo::from_der(own.as_ref()).map_err(|_| unusable())?;
    let same = own.algorithm.algorithm == parsed.public_key().algorithm.algorithm;
    let of = if same { "" } else { " type" };
    Err(format!("tls: private key{of} does not match public key{of}"))
}

/// The first block whose label is wanted, or the labels of the others.
fn first(pem: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Vec<u8>, Vec<String>> {
    let mut others = Vec::new();
    for block in Pem::iter_from_buffer(pem).map_while(Result::ok) {
        if wanted(&block.label) {
            return Ok(block.contents);
        }
        others.push(block.label);
    }
    Err(others)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};

    use super::pair_problem;

    #[test]
    fn what_does_not_belong_together_is_found() {
        let pair = |algorithm| {
            let key = KeyPair::generate_for(algorithm).expect("key");
            let parameters = CertificateParams::new(vec!["a.example.com".to_owned()]);
            let certificate = parameters.expect("parameters").self_signed(&key);
            (certificate.expect("certificate").pem(), key.serialize_pem())
        };
        let (certificate, key) = pair(&PKCS_ECDSA_P256_SHA256);
        let (_, other) = pair(&PKCS_ECDSA_P256_SHA256);
        let (_, stranger) = pair(&PKCS_ED25519);
        let problem = |certificate: &str, key: &str| {
            pair_problem(certificate.as_bytes(), key.as_bytes()).unwrap_or_default()
        };
        assert_eq!(problem(&certificate, &key), "");
        assert_eq!(problem(&format!("{certificate}{certificate}"), &key), "");
        let mismatch = "tls: private key does not match public key";
        assert_eq!(problem(&certificate, &other), mismatch);
        let types = "tls: private key type does not match public key type";
        assert_eq!(problem(&certificate, &stranger), types);
        let nothing = "tls: failed to find any PEM data in";
        assert_eq!(problem("x", &key), format!("{nothing} certificate input"));
        assert_eq!(problem(&certificate, ""), format!("{nothing} key input"));
        assert!(problem(&key, &certificate).ends_with("PEM inputs may have been switched"));
        assert!(problem(&certificate, &certificate).starts_with("tls: found a certificate rather"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(problem(broken, &key), "x509: malformed certificate");
        let broken = broken.replace("CERTIFICATE", "PRIVATE KEY");
        assert_eq!(problem(&certificate, &broken), "tls: failed to parse private key");
        let both = problem(&format!("{broken}{broken}"), &key);
        assert!(both.ends_with("of the following types: [PRIVATE KEY PRIVATE KEY]"), "{both}");
    }
}
