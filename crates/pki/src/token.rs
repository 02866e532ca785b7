//! Keys that sign service-account tokens (JWT; P-256, P-384 or RSA), their public half as a JWKS, random secrets.

use std::path::Path;

use aws_lc_rs::digest;
use aws_lc_rs::rand::fill;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::PublicKeyData as _;
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::PkiError;
use crate::files::{read, write_private};

/// The longest token that is looked at, in bytes.
pub(crate) const LONGEST_TOKEN: usize = 16 * 1024;

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It was signed by nobody known here, or is no token at all.
    #[error("token is not signed by this cluster")]
    Foreign,
    /// Its time is over.
    #[error("token has expired")]
    Expired,
    /// It is meant for others.
    #[error("token audiences or issuer do not match")]
    Audience,
}

/// The key that signs tokens, and the keys whose tokens are accepted: the signing one first, then
/// those that came before it.
#[derive(Clone)]
pub struct TokenKeys {
    signing: EncodingKey,
    accepted: Vec<Accepted>,
}

#[derive(Clone)]
struct Accepted {
    id: String,
    algorithm: Algorithm,
    key: DecodingKey,
    /// As a JSON Web Key.
    published: Value,
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.accepted.iter().map(|key| &key.id)).finish()
    }
}

impl TokenKeys {
    /// Reads the private PEM key (P-256, P-384 or RSA, PKCS #8) in `path`, or makes one where there is none.
    ///
    /// # Errors
    /// When the file is unreadable or damaged.
    pub fn load_or_create(path: &Path) -> Result<Self, PkiError> {
        let damaged = || PkiError::Content { path: path.to_owned(), expected: "private key" };
        let pem = match read(path)? {
            Some(pem) => pem,
            None => {
                let key = rcgen::KeyPair::generate().map_err(|source| PkiError::Issue {
                    name: "service account tokens".into(),
                    source,
                })?;
                let pem = key.serialize_pem();
                write_private(path, pem.as_bytes())?;
                pem
            }
        };
        let pair = rcgen::KeyPair::from_pem(&pem).map_err(|_| damaged())?;
        let accepted = accepted(&pair.subject_public_key_info()).ok_or_else(damaged)?;
        let signing = if accepted.algorithm == Algorithm::RS256 {
            EncodingKey::from_rsa_pem(pem.as_bytes())
        } else {
            EncodingKey::from_ec_pem(pem.as_bytes())
        };
        Ok(Self { signing: signing.map_err(|_| damaged())?, accepted: vec![accepted] })
    }

    /// Accepts tokens of another key as well: that of a PEM file, public or private.
    ///
    /// # Errors
    /// When the file is unreadable or damaged.
    pub fn accept(&mut self, path: &Path) -> Result<(), PkiError> {
        let damaged = || PkiError::Content { path: path.to_owned(), expected: "key" };
        let pem = read(path)?.ok_or_else(damaged)?;
        let public =
            SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map(|der| der.to_vec());
        let private = || rcgen::KeyPair::from_pem(&pem).map(|pair| pair.subject_public_key_info());
        let public = public.or_else(|_| private()).map_err(|_| damaged())?;
        let key = accepted(&public).ok_or_else(damaged)?;
        if !self.accepted.iter().any(|known| known.id == key.id) {
            self.accepted.push(key);
        }
        Ok(())
    }

    /// The algorithms of all keys, as JSON Web Tokens name them.
    pub fn algorithms(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.accepted.iter().map(|key| format!("{:?}", key.algorithm)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Signs `claims`.
    ///
    /// # Errors
    /// When the claims do not serialize.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, PkiError> {
        let own = self.accepted.first();
        let mut header = Header::new(own.map_or(Algorithm::ES256, |key| key.algorithm));
        header.kid = own.map(|key| key.id.clone());
        jsonwebtoken::encode(&header, claims, &self.signing)
            .map_err(|error| PkiError::Key(format!("sign token: {error}")))
    }

    /// Checks signature, issuer, audience (one of `audiences` must be in the token), `exp` and
    /// `nbf`, and returns the claims.
    ///
    /// # Errors
    /// What is wrong with the token.
    pub fn verify<C: DeserializeOwned>(
        &self,
        token: &str,
        issuer: &str,
        audiences: &[&str],
    ) -> Result<C, TokenError> {
        self.check(token, issuer, |validation| validation.set_audience(audiences))
    }

    /// Checks signature and issuer of a token that is bound to no audience and may have no end.
    ///
    /// # Errors
    /// What is wrong with the token.
    pub fn verify_endless<C: DeserializeOwned>(
        &self,
        token: &str,
        issuer: &str,
    ) -> Result<C, TokenError> {
        self.check(token, issuer, |validation| {
            validation.validate_aud = false;
            validation.set_required_spec_claims(&["iss"]);
        })
    }

    fn check<C: DeserializeOwned>(
        &self,
        token: &str,
        issuer: &str,
        more: impl Fn(&mut Validation),
    ) -> Result<C, TokenError> {
        use jsonwebtoken::errors::ErrorKind;
        if token.len() > LONGEST_TOKEN {
            return Err(TokenError::Foreign);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Foreign)?;
        let mut outcome = Err(TokenError::Foreign);
        let named = |key: &&Accepted| header.kid.as_ref().is_none_or(|id| *id == key.id);
        for key in self.accepted.iter().filter(named) {
            let mut validation = Validation::new(key.algorithm);
            validation.set_issuer(&[issuer]);
            validation.validate_nbf = true;
            validation.leeway = 10;
            more(&mut validation);
            let error = match jsonwebtoken::decode::<C>(token, &key.key, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::ExpiredSignature => outcome = Err(TokenError::Expired),
                ErrorKind::InvalidAudience
                | ErrorKind::InvalidIssuer
                | ErrorKind::MissingRequiredClaim(_) => outcome = Err(TokenError::Audience),
                _ => {}
            }
        }
        outcome
    }

    /// The public keys as a JSON Web Key Set (RFC 7517).
    pub fn key_set(&self) -> Value {
        json!({ "keys": self.accepted.iter().map(|key| &key.published).collect::<Vec<_>>() })
    }
}

/// A public key, given as DER.
fn accepted(spki: &[u8]) -> Option<Accepted> {
    let (_, info) = SubjectPublicKeyInfo::from_der(spki).ok()?;
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let digest = |bytes: &[u8]| encode(digest::digest(&digest::SHA256, bytes).as_ref());
    let unsigned = |bytes: &[u8]| {
        encode(&bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())..])
    };
    let (id, algorithm, key, mut published) = match info.parsed().ok()? {
        PublicKey::EC(point) => {
            // Uncompressed: 0x04, x, y.
            let point = point.data();
            let coordinates = point.strip_prefix(&[4])?;
            let (x, y) = coordinates.split_at_checked(coordinates.len() / 2)?;
            let (algorithm, curve) = match x.len() {
                32 => (Algorithm::ES256, "P-256"),
                48 => (Algorithm::ES384, "P-384"),
                _ => return None,
            };
            let (x, y) = (encode(x), encode(y));
            let key = DecodingKey::from_ec_components(&x, &y).ok()?;
            (digest(point), algorithm, key, json!({"kty": "EC", "crv": curve, "x": x, "y": y}))
        }
        PublicKey::RSA(key) => {
            let (n, e) = (unsigned(key.modulus), unsigned(key.exponent));
            let key = DecodingKey::from_rsa_components(&n, &e).ok()?;
            (digest(spki), Algorithm::RS256, key, json!({"kty": "RSA", "n": n, "e": e}))
        }
        _ => return None,
    };
    published["use"] = "sig".into();
    published["kid"] = id.as_str().into();
    published["alg"] = format!("{algorithm:?}").into();
    Some(Accepted { id, algorithm, key, published })
}

/// `bytes` random bytes as lower-case hexadecimal.
///
/// # Errors
/// When the kernel gives no randomness.
pub fn random_secret(bytes: usize) -> Result<String, PkiError> {
    let mut secret = vec![0; bytes];
    fill(&mut secret).map_err(|_| PkiError::Key("the kernel gives no random bytes".into()))?;
    Ok(crate::request::hex(&secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(expires_in: i64) -> Value {
        let now = jiff::Timestamp::now().as_second();
        json!({"iss": "https://skiff", "aud": ["api"], "exp": now + expires_in, "nbf": now, "sub": "me"})
    }

    #[test]
    fn tokens_are_accepted_by_their_own_key_alone() {
        let directory = tempfile::tempdir().unwrap();
        let keys = TokenKeys::load_or_create(&directory.path().join("one.key")).unwrap();
        let again = TokenKeys::load_or_create(&directory.path().join("one.key")).unwrap();
        let other = TokenKeys::load_or_create(&directory.path().join("two.key")).unwrap();
        let token = keys.sign(&claims(600)).unwrap();
        let read: Value = again.verify(&token, "https://skiff", &["x", "api"]).unwrap();
        assert_eq!(read["sub"], "me");
        assert!(matches!(
            other.verify::<Value>(&token, "https://skiff", &["api"]),
            Err(TokenError::Foreign)
        ));
        assert!(matches!(
            keys.verify::<Value>(&token, "https://skiff", &["x"]),
            Err(TokenError::Audience)
        ));
        assert!(matches!(
            keys.verify::<Value>(&token, "https://else", &["api"]),
            Err(TokenError::Audience)
        ));
        assert!(matches!(
            keys.verify::<Value>("a.b.c", "https://skiff", &["api"]),
            Err(TokenError::Foreign)
        ));
    }

    #[test]
    fn every_kind_of_key_signs_and_is_published() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let large = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        std::fs::write(path("rsa.pem"), rsa.serialize_pem()).unwrap();
        std::fs::write(path("rsa.pub"), rsa.public_key_pem()).unwrap();
        std::fs::write(path("large.pem"), large.serialize_pem()).unwrap();
        let mut own = TokenKeys::load_or_create(&path("own.pem")).unwrap();
        let rsa = TokenKeys::load_or_create(&path("rsa.pem")).unwrap();
        let large = TokenKeys::load_or_create(&path("large.pem")).unwrap();
        let verify = |keys: &TokenKeys, token: &str| {
            keys.verify::<Value>(token, "https://skiff", &["api"]).is_ok()
        };
        for keys in [&rsa, &large] {
            let token = keys.sign(&claims(600)).unwrap();
            assert!(verify(keys, &token) && !verify(&own, &token));
        }
        own.accept(&path("rsa.pub")).unwrap();
        own.accept(&path("large.pem")).unwrap();
        own.accept(&path("large.pem")).unwrap();
        assert_eq!(own.algorithms(), ["ES256", "ES384", "RS256"]);
        let published = crate::KeySet::parse(own.key_set().to_string().as_bytes()).unwrap();
        for keys in [&own, &rsa, &large] {
            let token = keys.sign(&claims(600)).unwrap();
            assert!(verify(&own, &token));
            assert_eq!(published.verify(&token).unwrap()["sub"], "me");
        }
        std::fs::write(path("odd.pem"), "nothing").unwrap();
        assert!(own.accept(&path("odd.pem")).is_err() && own.accept(&path("none")).is_err());
    }

    #[test]
    fn an_endless_token_needs_its_issuer() {
        let directory = tempfile::tempdir().unwrap();
        let keys = TokenKeys::load_or_create(&directory.path().join("one.key")).unwrap();
        let token = keys.sign(&json!({"iss": "old", "sub": "me"})).unwrap();
        assert_eq!(keys.verify_endless::<Value>(&token, "old").unwrap()["sub"], "me");
        assert!(keys.verify_endless::<Value>(&token, "new").is_err());
        assert!(keys.verify::<Value>(&token, "old", &["api"]).is_err());
        let over = keys.sign(&json!({"iss": "old", "exp": 1})).unwrap();
        assert!(keys.verify_endless::<Value>(&over, "old").is_err());
        let nobody = keys.sign(&json!({"sub": "me"})).unwrap();
        assert!(keys.verify_endless::<Value>(&nobody, "old").is_err());
    }

    #[test]
    fn expired_tokens_say_so() {
        let directory = tempfile::tempdir().unwrap();
        let keys = TokenKeys::load_or_create(&directory.path().join("one.key")).unwrap();
        let token = keys.sign(&claims(-60)).unwrap();
        assert!(matches!(
            keys.verify::<Value>(&token, "https://skiff", &["api"]),
            Err(TokenError::Expired)
        ));
    }
}
