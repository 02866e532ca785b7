//! The whole API server: over HTTP semantics without TCP, over TLS, and with real kubectl.

mod access;
mod admission;
mod anything;
mod api;
mod broken;
mod clients;
mod encodings;
mod floods;
mod hostile;
mod kubectl;
#[path = "../../../registry/tests/engine/minimal.rs"]
mod minimal;
mod openapi;
mod reach;
mod reads;
mod rows;
mod server_side;
mod stolen;
mod streams;
mod support;
mod tunnel;
mod who;
mod writes;

#[global_allocator]
static ALLOCATOR: fuzz::memory::Counting = fuzz::memory::Counting;
