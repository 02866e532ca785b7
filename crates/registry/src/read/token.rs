//! The `continue` token: where the next page starts, at which revision.
//!
//! Clients treat it as opaque; the form is upstream's with one addition.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use meta::Status;
use serde::{Deserialize, Serialize};

/// A parsed token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) revision: u64,
    /// The last key served, without the collection's prefix.
    pub(super) start: String,
    /// How many objects were left after it, where that is known.
    pub(super) left: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    v: String,
    rv: u64,
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
        let refuse = |why: String| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| refuse(error.to_string()))?;
        let wire: Wire =
            serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
        if wire.v != VERSION {
            return Err(refuse(format!(
                "server does not recognize this encoded version {:?}",
                wire.v
            )));
        }
        if wire.rv == 0 || wire.start.is_empty() {
            return Err(refuse(
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)".to_owned(),
            ));
        }
        Ok(Some(Self { revision: wire.rv, start: wire.start, left: wire.left }))
    }

    /// The text of the token.
    pub(super) fn write(self) -> String {
        let wire =
            Wire { v: VERSION.to_owned(), rv: self.revision, start: self.start, left: self.left };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let token = || Token { revision: 7, start: "d/web".to_owned(), left: Some(3) };
        assert_eq!(Token::read(&token().write()), Ok(Some(token())));
        assert_eq!(Token::read(""), Ok(None));
        let refused = Token::read("%%").expect_err("no base64");
        assert!(refused.message.starts_with("continue key is not valid: "), "{}", refused.message);
    }
}
