//! Keys that sign service-account tokens (JWT, ES256), their public half as a JWKS, random secrets.

use std::path::Path;

use aws_lc_rs::digest;
use aws_lc_rs::rand::fill;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

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
pub struct TokenKeys {
    signing: EncodingKey,
    accepted: Vec<Accepted>,
}

struct Accepted {
    id: String,
    key: DecodingKey,
    x: String,
    y: String,
}

impl TokenKeys {
    /// Reads the PEM key (PKCS #8, P-256) in `path`, or makes one where there is none.
    ///
    /// # Errors
    /// When the file is unreadable or damaged.
    pub fn load_or_create(path: &Path) -> Result<Self, PkiError> {
        let damaged = || PkiError::Content { path: path.to_owned(), expected: "P-256 private key" };
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
        let signing = EncodingKey::from_ec_pem(pem.as_bytes()).map_err(|_| damaged())?;
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pair.serialize_der())
                .map_err(|_| damaged())?;
        Ok(Self {
            signing,
            accepted: vec![accepted(pair.public_key().as_ref()).ok_or_else(damaged)?],
        })
    }

    /// Signs `claims`.
    ///
    /// # Errors
    /// When the claims do not serialize.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, PkiError> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = self.accepted.first().map(|key| key.id.clone());
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
        use jsonwebtoken::errors::ErrorKind;
        if token.len() > LONGEST_TOKEN {
            return Err(TokenError::Foreign);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Foreign)?;
        let key = self
            .accepted
            .iter()
            .find(|key| header.kid.as_ref().is_none_or(|id| *id == key.id))
            .ok_or(TokenError::Foreign)?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[issuer]);
        validation.set_audience(audiences);
        validation.validate_nbf = true;
        validation.leeway = 10;
        match jsonwebtoken::decode::<C>(token, &key.key, &validation) {
            Ok(data) => Ok(data.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::ExpiredSignature => TokenError::Expired,
                ErrorKind::InvalidAudience
                | ErrorKind::InvalidIssuer
                | ErrorKind::MissingRequiredClaim(_) => TokenError::Audience,
                _ => TokenError::Foreign,
            }),
        }
    }

    /// The public keys as a JSON Web Key Set (RFC 7517).
    pub fn key_set(&self) -> Value {
        let keys: Vec<Value> = self
            .accepted
            .iter()
            .map(|key| {
                json!({"use": "sig", "kty": "EC", "kid": key.id, "crv": "P-256", "alg": "ES256", "x": key.x, "y": key.y})
            })
            .collect();
        json!({ "keys": keys })
    }
}

/// Takes an uncompressed point: 0x04, x, y.
fn accepted(point: &[u8]) -> Option<Accepted> {
    let (x, y) = point.strip_prefix(&[4])?.split_at_checked(32)?;
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, point));
    Some(Accepted { id, key: DecodingKey::from_ec_components(&x, &y).ok()?, x, y })
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
