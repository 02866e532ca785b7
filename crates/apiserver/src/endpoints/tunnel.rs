//! `GET /skiff/v1/tunnel`: a node opens a tunnel to itself.
//!
//! Owns who may: the node whose certificate the connection carries, for itself. Refuses to know what goes through.

use http::{Request, Response};
use meta::Status;
use registry::UserInfo;
use serve::{Body, tunnel};

use crate::{
    identity::{EXTRA_CREDENTIAL_ID, Identity},
    server::Core,
};

/// The path that takes tunnels.
pub const PATH: &str = "/skiff/v1/tunnel";

/// Takes a node's tunnel; it stays until either side ends it.
pub(crate) fn answer(
    core: &Core,
    user: &UserInfo,
    mut request: Request<Body>,
) -> Result<Response<Body>, Status> {
    // Whoever may impersonate a node has not got its addresses.
    let by_certificate =
        user.first_extra(EXTRA_CREDENTIAL_ID).is_some_and(|id| id.starts_with("X509SHA256="));
    let posing = request.headers().keys().any(|name| name.as_str().starts_with("impersonate-"));
    let node = user.node().filter(|node| !node.is_empty() && by_certificate && !posing);
    let Some(node) = node.map(str::to_owned) else {
        return Err(Status::new(
            403,
            "Forbidden",
            format!("{:?} is no node: a tunnel is opened with a node's own certificate", user.name),
        ));
    };
    let Some((response, offer)) = tunnel::accept(&mut request) else {
        return Err(Status::bad_request(format!(
            "this path takes tunnels: ask for an upgrade to {}",
            tunnel::PROTOCOL
        )));
    };
    let egress = core.egress.clone();
    let carry = async move {
        match offer.open().await {
            Ok((tunnel, link)) => {
                tracing::info!(node, "a node has opened its tunnel");
                let id = egress.tunnels.insert(&node, tunnel);
                link.await;
                egress.tunnels.remove(&node, id);
                tracing::info!(node, "a node's tunnel has ended");
            }
            Err(error) => tracing::debug!(node, %error, "a tunnel was not opened"),
        }
    };
    tokio::spawn(core.shutdown.clone().run_until_cancelled_owned(carry));
    Ok(response)
}
