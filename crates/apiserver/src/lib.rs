//! The API server: everything between a connection and the resource engine.
//!
//! Owns authentication, impersonation, flow control, authorization, admission plugins, discovery, OpenAPI,
//! health, metrics, audit, token and access reviews, and the proxying of streams to kubelets. Knows nothing of
//! controllers, and of storage only through [`registry::Registry`].
//!
//! ```text
//! let server = ApiServer::new(options, Dependencies { store, rows, token_keys, kubelet_tls }, shutdown).await?;
//! tokio::spawn(server.clone().run());                    // bootstrap, RBAC, endpoints, the engine's own work
//! tokio::spawn(listener.run(server.clone(), shutdown));  // serve::Server; ApiServer is its Handler
//! let client = kube::Client::new(server.in_process(user), "default");
//! ```

pub mod admission;
pub mod audit;
pub mod authn;
pub mod authz;
mod bootstrap;
mod egress;
mod endpoints;
mod flow;
pub mod hook;
pub mod identity;
mod impersonate;
mod metrics;
mod objects;
mod options;
mod peers;
mod reload;
mod remember;
pub mod request;
mod routes;
mod server;
mod start;
mod state;
mod traces;

pub use admission::{AdmissionError, AdmissionOptions, DefaultTolerationSeconds};
pub use bootstrap::BootstrapError;
pub use endpoints::tunnel::PATH as TUNNEL_PATH;
pub use flow::FlowOptions;
pub use identity::authenticated;
pub use options::{ApiServerOptions, Dependencies};
pub use reload::{ConfigurationFile, ReloadOptions};
pub use server::{ApiServer, InProcessService};
pub use start::ApiServerError;
pub use traces::TracingConfiguration;
