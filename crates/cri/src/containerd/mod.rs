//! A private containerd: its configuration, its process, image import, and its complete removal. Everything it owns
//! lies under two directories, so several can live on one machine. Knows nothing of pods beyond the runtime trait.
//!
//! containerd outlives skiff: killing skiff leaves pods running, and the next [`Containerd::start`] adopts what it
//! finds. [`stop_all`] ends it with everything it runs.

mod config;
mod import;
mod mounts;
mod supervisor;
mod teardown;

pub use config::{ContainerdOptions, Snapshotter};
pub use import::{ImportError, import};
pub use supervisor::{Containerd, ContainerdError};
pub use teardown::{StopReport, stop_all};
