//! Small answers.

use http::{Response, StatusCode, header::CONTENT_TYPE};
use serde::Serialize;
use serve::Body;

/// A plain sentence.
pub(super) fn text(status: StatusCode, message: impl Into<String>) -> Response<Body> {
    with_type(status, "text/plain; charset=utf-8", Body::full(message.into().into_bytes()))
}

/// A JSON document.
pub(super) fn json(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => with_type(StatusCode::OK, "application/json", Body::full(bytes)),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// A body of some type.
pub(super) fn with_type(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

pub(super) fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found")
}

pub(super) fn method_not_allowed() -> Response<Body> {
    text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed")
}
