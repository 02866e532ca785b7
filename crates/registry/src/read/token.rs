//! The `continue` token: where the next page starts, at which revision.
//!
//! Clients treat it as opaque; the form is upstream's with one addition.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine as _};
use meta::Status;
use serde::{Deserialize, Serialize};

/// A parsed token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// The revision that all pages show; none where the rest is to be taken from the newest state.
    pub(super) revision: Option<u64>,
    /// The last key served, without the collection's prefix.
    pub(super) start: String,
    /// How many objects were left after it, where that is known.
    pub(super) left: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(default)]
    v: String,
    #[serde(default)]
    rv: i64,
    #[serde(default)]
    start: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
}

const VERSION: &str = "meta.k8s.io/v1";

impl Token {
    /// Parses a token; `None` where it is empty.
    ///
    /// # Errors
    /// 400 for what is no token.
    pub(super) fn read(text: &str) -> Result<Option<Self>, Status> {
        if text.is_empty() {
            return Ok(None);
        }
        let refuse = |why: &str| {
            Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
        };
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| refuse(&illegal(&error, text)))?;
        let wire: Wire =
            serde_json::from_slice(&bytes).map_err(|error| refuse(&error.to_string()))?;
        if wire.v != VERSION {
            return Err(refuse(&format!(
                "server does not recognize this encoded version {}",
                wire.v
            )));
        }
        if wire.rv == 0 {
            return Err(refuse("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if wire.start.is_empty() {
            return Err(refuse("encoded start key empty (version meta.k8s.io/v1)"));
        }
        let mut parts = wire.start.strip_prefix('/').unwrap_or(&wire.start).split('/');
        if parts.any(|part| matches!(part, "" | "." | "..")) {
            return Err(refuse(&wire.start));
        }
        let start = wire.start.strip_prefix('/').unwrap_or(&wire.start).to_owned();
        Ok(Some(Self { revision: u64::try_from(wire.rv).ok(), start, left: wire.left }))
    }

    /// The text of the token.
    pub(super) fn write(&self) -> String {
        let rv = self.revision.map_or(-1, |revision| i64::try_from(revision).unwrap_or(i64::MAX));
        let wire = Wire { v: VERSION.to_owned(), rv, start: self.start.clone(), left: self.left };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }

    /// The text of a token that goes on from the same place in the newest state.
    pub(super) fn unbound(&self) -> String {
        Self { revision: None, start: self.start.clone(), left: None }.write()
    }
}

/// Where base64 ends to be some, in the words of Go.
fn illegal(error: &DecodeError, text: &str) -> String {
    let at = match error {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => *at,
        DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len(),
    };
    format!("illegal base64 data at input byte {at}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let token = Token { revision: Some(7), start: "d/web".to_owned(), left: Some(3) };
        assert_eq!(Token::read(&token.write()), Ok(Some(token)));
        let token = Token { revision: Some(7), start: "d/web".to_owned(), left: Some(3) };
        let unbound = Token { revision: None, start: "d/web".to_owned(), left: None };
        assert_eq!(Token::read(&token.unbound()), Ok(Some(unbound)));
        assert_eq!(Token::read(""), Ok(None));
    }

    #[test]
    fn damaged_tokens_are_refused_or_read_the_same_again() {
        let token = Token { revision: Some(7), start: "d/web".to_owned(), left: Some(3) };
        let (json, text) = (URL_SAFE_NO_PAD.decode(token.write()).expect("base64"), token.write());
        fuzz::campaign("continue tokens", 5000, |rng| {
            let inner = fuzz::mutate::bytes(rng, std::slice::from_ref(&json));
            for text in [URL_SAFE_NO_PAD.encode(inner), fuzz::mutate::text(rng, &[&text])] {
                match Token::read(&text) {
                    Ok(Some(token)) => {
                        assert!(!token.start.split('/').any(|part| part == ".."), "{token:?}");
                        assert_eq!(Token::read(&token.write()), Ok(Some(token)));
                    }
                    Ok(None) => assert!(text.is_empty()),
                    Err(status) => assert_eq!(status.code, 400),
                }
            }
        });
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let check = |json: &str, expected: &str| {
            let refused = Token::read(&URL_SAFE_NO_PAD.encode(json)).expect_err(json);
            let expected = format!("invalid continue token: continue key is not valid: {expected}");
            assert_eq!((refused.code, refused.message), (400, expected));
        };
        check(
            r#"{"v":"v2","rv":1,"start":"a"}"#,
            "server does not recognize this encoded version v2",
        );
        check(
            r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#,
            "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
        );
        check(
            r#"{"v":"meta.k8s.io/v1","rv":1,"start":""}"#,
            "encoded start key empty (version meta.k8s.io/v1)",
        );
        check(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a/../../b"}"#, "a/../../b");
        assert!(Token::read("%%").is_err());
    }
}
