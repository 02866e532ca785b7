//! Public keys of somebody else who signs tokens: a JSON Web Key Set (RFC 7517), and what it says of a token.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

use crate::TokenError;
use crate::token::LONGEST_TOKEN;

/// The keys of an issuer.
pub struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    /// The one algorithm it is for, if it says so.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

impl KeySet {
    /// Reads a key set. Keys that are no public keys for signatures are left out.
    ///
    /// # Errors
    /// When it is no key set.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(serde::Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(json)?;
        Ok(Self(set.keys.into_iter().filter_map(key).collect()))
    }

    /// Whether a key of that name is here.
    pub fn holds(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// The name of the key that a token says it was signed with.
    pub fn id_of(token: &str) -> Option<String> {
        jsonwebtoken::decode_header(token).ok()?.kid
    }

    /// Checks signature, `exp` (which must be there) and `nbf`; returns the claims. Issuer and audience are the
    /// caller's to judge.
    ///
    /// # Errors
    /// What is wrong with the token.
    pub fn verify(&self, token: &str) -> Result<Map<String, Value>, TokenError> {
        if token.len() > LONGEST_TOKEN {
            return Err(TokenError::Foreign);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Foreign)?;
        let mut validation = Validation::new(header.alg);
        validation.validate_aud = false;
        validation.validate_nbf = true;
        validation.leeway = 10;
        let mut outcome = Err(TokenError::Foreign);
        for key in &self.0 {
            let named = header.kid.is_none() || key.id.is_none() || key.id == header.kid;
            let fits = key.algorithm.is_none_or(|algorithm| algorithm == header.alg);
            if !named || !fits {
                continue;
            }
            match jsonwebtoken::decode(token, &key.key, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) if *error.kind() == ErrorKind::ExpiredSignature => {
                    outcome = Err(TokenError::Expired);
                }
                Err(_) => {}
            }
        }
        outcome
    }
}

fn key(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    if matches!(&jwk.common.public_key_use, Some(usage) if *usage != PublicKeyUse::Signature) {
        return None;
    }
    // A shared secret would let its holders sign for the issuer.
    if matches!(jwk.algorithm, jsonwebtoken::jwk::AlgorithmParameters::OctetKey(_)) {
        return None;
    }
    let named = jwk.common.key_algorithm;
    let algorithm = named.and_then(|named| named.to_string().parse().ok());
    Some(Key { id: jwk.common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(&jwk).ok()? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::TokenKeys;

    #[test]
    fn tokens_are_judged_by_published_keys() {
        let directory = tempfile::tempdir().unwrap();
        let keys = TokenKeys::load_or_create(&directory.path().join("one.key")).unwrap();
        let other = TokenKeys::load_or_create(&directory.path().join("two.key")).unwrap();
        let set = KeySet::parse(keys.key_set().to_string().as_bytes()).unwrap();
        let now = jiff::Timestamp::now().as_second();
        let sign = |keys: &TokenKeys, exp: i64| {
            keys.sign(&json!({"sub": "me", "exp": exp, "aud": "x"})).unwrap()
        };
        let token = sign(&keys, now + 60);
        assert!(set.holds(&KeySet::id_of(&token).unwrap()));
        assert_eq!(set.verify(&token).unwrap()["sub"], "me");
        assert!(matches!(set.verify(&sign(&keys, now - 60)), Err(TokenError::Expired)));
        assert!(matches!(set.verify(&sign(&other, now + 60)), Err(TokenError::Foreign)));
        let endless = keys.sign(&json!({"sub": "me"})).unwrap();
        assert!(matches!(set.verify(&endless), Err(TokenError::Foreign)));
        let secret = json!({"keys": [{"kty": "oct", "k": "AAAA", "alg": "HS256"}, {"kty": "odd"}]});
        assert!(KeySet::parse(secret.to_string().as_bytes()).unwrap().0.is_empty());
        assert!(KeySet::parse(b"{}").is_err());
    }
}
