//! Cluster DNS: names of Services, endpoints and pods, and everything else by way of the node's
//! own resolvers.
//!
//! Answers follow the Kubernetes DNS specification 1.1.0. `catalog` holds what there is, `answer`,
//! `search` and `routes` decide purely, `desk` says what becomes of a question, `memo` repeats it, `server`,
//! `datagrams` and `forward` do the I/O. Knows nothing of the proxy that leads the cluster DNS address here.

mod answer;
mod cache;
mod catalog;
mod datagrams;
mod desk;
mod forward;
mod memo;
mod metrics;
mod names;
mod objects;
mod options;
mod routes;
mod search;
mod server;
mod upstreams;
mod wire;

pub use metrics::Metrics;
pub use objects::{RegisterError, register, register_service};
pub use options::DnsOptions;
pub use server::{Dns, DnsError};
