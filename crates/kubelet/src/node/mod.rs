//! The Node object and its lease: registration, status, heartbeat. Knows nothing of pods.

mod capacity;
mod conditions;
mod lease;
mod register;

pub(crate) use capacity::Capacity;
pub(crate) use lease::renew_forever;
pub(crate) use register::Registrar;
