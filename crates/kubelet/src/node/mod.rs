//! The Node object and its lease: registration, status, heartbeat. Knows nothing of pods.

mod capacity;
mod conditions;
pub(crate) mod fence;
mod lease;
mod register;
pub(crate) mod shutdown;

pub(crate) use capacity::Capacity;
pub(crate) use lease::{Heartbeat, Pulse};
pub(crate) use register::Registrar;
