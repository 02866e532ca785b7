//! What answers a request once it is known who asks, for what, and that they may.

mod bodies;
pub(crate) mod discovery;
pub(crate) mod encode;
pub(crate) mod health;
pub(crate) mod kubelet;
mod nonresource;
pub(crate) mod openapi;
mod proxy;
mod resources;
pub(crate) mod respond;
mod reviews;
pub(crate) mod socket;
mod token;
pub(crate) mod tunnel;

use std::sync::Arc;

use http::HeaderMap;
use registry::{Row, UserInfo};

use crate::request::{Query, RequestInfo};

pub(crate) use nonresource::answer as nonresource;
pub(crate) use resources::{answer as resource, is_proxied, proxied, read, supports};
pub(crate) use reviews::user_info;

/// A request on a resource, taken apart.
pub(crate) struct Context<'a> {
    /// Who asks.
    pub(crate) user: Arc<UserInfo>,
    /// What the path says.
    pub(crate) info: &'a RequestInfo,
    /// The query.
    pub(crate) query: &'a Query,
    /// The resource in the version asked for.
    pub(crate) row: Arc<Row>,
    /// The request's headers.
    pub(crate) headers: &'a HeaderMap,
}
