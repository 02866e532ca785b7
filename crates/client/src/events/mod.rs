//! Recording core/v1 Events about objects: queued, correlated, written in the background.
//!
//! Knows nothing of why an event happens. What is repeated, combined or dropped is decided in
//! `correlate`, without I/O.

mod correlate;
mod record;

pub use record::{EventKind, EventRecorder, reference};
