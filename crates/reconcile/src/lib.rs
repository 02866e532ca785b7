//! The controller runtime: everything that controllers have in common, so that each is only an
//! `observe` and a pure `plan`.
//!
//! Owns the queue of keys, one run at a time for each key, back-off, waiting for caches, guards
//! against stale reads, applying plans, events and panic capture. Knows no particular
//! controller or kind.

mod action;
mod apply;
mod controller;
mod guard;
mod metrics;
mod queue;
mod runtime;
mod triggers;

pub use action::{Action, Note, Plan, Propagation, Report, merge_diff};
pub use apply::{ApplyError, apply};
pub use controller::{Context, Controller, Failure, Outcome, Planned, Reconciler};
pub use guard::{Guard, Wrote};
pub use metrics::Metrics;
pub use runtime::{Deps, Runtime, Trigger};
pub use triggers::{controller_of, itself, owner_of};
