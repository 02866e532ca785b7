//! exec, attach and port-forward: from an upgraded request of the kubelet's API to the container
//! runtime's streaming server, or into a pod's network namespace.
//!
//! Which container is meant, and whether the caller may, is decided before.

mod command;
mod forward;

use http::{Response, StatusCode};
use serve::Body;
use stream::upgrade::Refusal;

pub(crate) use command::{Container, Purpose, command};
pub(crate) use forward::forward;

fn refused(refusal: &Refusal) -> Response<Body> {
    text(refusal.status(), refusal.to_string())
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}
