//! Cluster DNS: names of Services, endpoints and pods, and everything else by way of the node's
//! own resolvers.
//!
//! Answers follow the Kubernetes DNS specification 1.1.0. `catalog` holds what there is, `answer`
//! decides purely, `server` and `forward` do the I/O. Knows nothing of the proxy that leads the
//! cluster DNS address here.

mod answer;
mod cache;
mod catalog;
mod forward;
mod names;
mod objects;
mod options;
mod server;
mod upstreams;
mod wire;

pub use objects::{RegisterError, register};
pub use options::DnsOptions;
pub use server::{Dns, DnsError};
