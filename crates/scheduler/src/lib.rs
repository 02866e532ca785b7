//! The scheduler: which node each pending pod runs on, and why a pod cannot run anywhere.
//!
//! It knows pods and nodes and the API that binds one to the other; it knows nothing of
//! controllers, of the kubelet, or of how the API is served.
//!
//! - [`pod`], [`node`], [`resources`]: what scheduling needs to know, parsed once.
//! - [`plugin`]: the extension points, small traits; [`plugins`]: one file each, one line each
//!   in one array. Plugins see an immutable [`Snapshot`] and their arguments.
//! - [`algorithm`]: filter, score, choose. [`queue`]: whose turn it is. [`cluster`]: what is
//!   where, decisions under way included. All three are pure.
//! - `driver`: the only part that does I/O: it watches, assumes, binds and reports.

mod affinity;
pub mod algorithm;
pub mod bench;
pub mod cluster;
mod driver;
mod error;
mod event;
pub mod node;
mod options;
pub mod plugin;
pub mod plugins;
pub mod pod;
pub mod queue;
mod report;
pub mod resources;

pub use cluster::Snapshot;
pub use driver::Scheduler;
pub use error::SchedulerError;
pub use event::Event;
pub use options::SchedulerOptions;
