//! The whole API server: over HTTP semantics without TCP, over TLS, and with real kubectl.

mod access;
mod api;
mod kubectl;
mod stolen;
mod streams;
mod support;
mod tunnel;
mod who;
