//! How components reach a Kubernetes API server: clients (in process or over HTTPS), shared
//! caches, event recording and leader election.
//!
//! Knows the API's protocols (list, watch, patch, Lease, Event) and nothing of what any
//! component does with the objects.

mod backoff;
mod cache;
mod caches;
mod connect;
mod error;
mod events;
mod key;
mod leader;
mod list_watch;
mod metadata;
mod select;
mod servers;
mod status;
mod subscription;
mod watch;

pub use cache::Cache;
pub use caches::Caches;
pub use connect::{ConnectError, from_kubeconfig, in_process};
pub use error::{ErrorExt, status_of};
pub use events::{EventKind, EventRecorder, reference};
pub use key::{Object, ObjectKey};
pub use leader::{Election, LeaderElection};
pub use list_watch::{Step, follow};
pub use metadata::Metadata;
pub use select::Select;
pub use servers::{BadServer, Remote, ServerAddress, Servers};
pub use status::patch_status;
pub use subscription::{Change, Subscription};
