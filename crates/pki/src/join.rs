//! Join tokens: a bootstrap token and the hash of the authority whose servers may be shown it.
//!
//! Knows the text alone, nothing of the Secret behind it.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{PkiError, random_secret};

/// `<id>.<secret>.<hash>`: six and sixteen letters or digits, and 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The public half of the bootstrap token.
    pub id: String,
    /// The secret half.
    pub secret: String,
    /// [`crate::authority_hash`] of the cluster's authority.
    pub authority: String,
}

impl JoinToken {
    /// A token with new random halves.
    ///
    /// # Errors
    /// When the kernel gives no randomness.
    pub fn generate(authority: String) -> Result<Self, PkiError> {
        Ok(Self { id: random_secret(3)?, secret: random_secret(8)?, authority })
    }

    /// What authenticates a request: `<id>.<secret>`.
    pub fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

/// Whether a part of a token is of so many small letters and digits.
fn is_part(part: &str, length: usize) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    part.len() == length && part.bytes().all(plain)
}

/// The halves of what looks like a bootstrap token: `<id>.<secret>`.
pub fn bootstrap_token(text: &str) -> Option<(&str, &str)> {
    let (id, secret) = text.split_once('.')?;
    (is_part(id, 6) && is_part(secret, 16)).then_some((id, secret))
}

impl FromStr for JoinToken {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (token, hash) = text.trim().rsplit_once('.').unwrap_or_default();
        let is_hash = is_part(hash, 64) && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        match bootstrap_token(token) {
            Some((id, secret)) if is_hash => {
                Ok(Self { id: id.into(), secret: secret.into(), authority: hash.into() })
            }
            _ => Err("not a join token: it looks like 6 letters, 16 letters and 64 hexadecimal \
                 digits with dots between; `skiff token create` on a server prints one"),
        }
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.id, self.secret, self.authority)
    }
}

/// Signs a text so that who knows a bootstrap token can tell that it comes from the cluster: a
/// detached JSON Web Signature (RFC 7515, HS256) with the token's id as key id.
pub fn sign_for_token(text: &str, id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(text));
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes())))
}

/// Never the secret: this ends up in logs.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}.…)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_what_kubeadm_verifies() {
        let signed = sign_for_token("payload", "abcdef", "0123456789abcdef");
        let (header, signature) = signed.split_once("..").unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(header).unwrap(), br#"{"alg":"HS256","kid":"abcdef"}"#);
        let key = jsonwebtoken::DecodingKey::from_secret(b"0123456789abcdef");
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode("payload"));
        let algorithm = jsonwebtoken::Algorithm::HS256;
        assert!(
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, algorithm).unwrap()
        );
    }

    #[test]
    fn bootstrap_tokens_have_one_shape() {
        let token = "abcdef.0123456789abcdef";
        assert_eq!(bootstrap_token(token), Some(("abcdef", "0123456789abcdef")));
        for other in ["abcdef", "Abcdef.0123456789abcdef", "abcdef.0123456789abcde", "a.b.c"] {
            assert_eq!(bootstrap_token(other), None, "{other}");
        }
    }

    #[test]
    fn a_token_is_read_as_it_is_written() {
        let token = JoinToken::generate("ab".repeat(32)).unwrap();
        assert_eq!(token.to_string().parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains(&token.secret));
        for wrong in
            ["", "abcdef.0123456789abcdef", "ABCDEF.0123456789abcdef.00", &format!("{token}.x")]
        {
            assert!(wrong.parse::<JoinToken>().is_err(), "{wrong}");
        }
    }
}
