//! Responses put together: status, media type, entity tags, compression, pretty printing.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use meta::Status;
use serve::Body;
use sha2::{Digest, Sha256};

pub(crate) use super::encode::Teller;

/// JSON's media type.
pub(crate) const JSON: &str = "application/json";

/// A response of a media type.
pub(crate) fn bytes(
    code: StatusCode,
    media: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A JSON response.
pub(crate) fn json(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    bytes(code, JSON, body)
}

/// Plain text.
pub(crate) fn text(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = bytes(code, "text/plain; charset=utf-8", body);
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// 404 for a path below which nothing is served at all.
pub(crate) fn no_such_page() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// A failure, as a `Status`.
pub(crate) fn failure(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, status.to_json());
    let retry = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}

/// The answer to one too many, in plain text as upstream has it.
pub(crate) fn too_many(retry_after: u64) -> Response<Body> {
    let code = StatusCode::TOO_MANY_REQUESTS;
    let mut response = text(code, "Too many requests, please try again later.\n");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
    response
}

/// A strong entity tag of these bytes.
pub(crate) fn entity_tag(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    format!("\"{hex}\"")
}

/// A document with an entity tag: 304 if the client has it already.
pub(crate) fn tagged(
    request: &HeaderMap,
    media: &'static str,
    tag: &str,
    body: Bytes,
) -> Response<Body> {
    let known = request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().trim_start_matches("W/") == tag);
    let mut response = if known {
        bytes(StatusCode::NOT_MODIFIED, media, "")
    } else {
        bytes(StatusCode::OK, media, body)
    };
    if known {
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// Whether the client understands gzip.
pub(crate) fn accepts_gzip(request: &HeaderMap) -> bool {
    request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(
        |value| {
            value.split(',').any(|coding| {
                let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
                name.trim() == "gzip" && quality.trim() != "q=0"
            })
        },
    )
}

/// Compresses at the fastest level; the network between client and server is rarely the bottleneck.
pub(crate) fn gzip(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
    encoder.write_all(body)?;
    Ok(encoder.finish()?.into())
}

/// Marks a response as compressed.
pub(crate) fn mark_gzip(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// Adds `Warning` headers, `299 - "text"`.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings.iter().take(32) {
        let clean: String =
            warning.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1024).collect();
        let escaped = clean.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{escaped}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_document_is_not_sent_again() {
        let tag = entity_tag(b"x");
        let mut request = HeaderMap::new();
        assert_eq!(tagged(&request, JSON, &tag, Bytes::from_static(b"x")).status(), StatusCode::OK);
        request.insert(header::IF_NONE_MATCH, format!("\"a\", {tag}").parse().expect("header"));
        let again = tagged(&request, JSON, &tag, Bytes::from_static(b"x"));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()[header::ETAG], tag.as_str());
    }

    #[test]
    fn gzip_needs_consent() {
        let mut request = HeaderMap::new();
        assert!(!accepts_gzip(&request));
        request.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("deflate, gzip;q=1"));
        assert!(accepts_gzip(&request));
        request.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip;q=0"));
        assert!(!accepts_gzip(&request));
    }
}
