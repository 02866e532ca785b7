//! The engine in process, on the embedded store.

mod admission;
mod bad_input;
mod common;
mod every_row;
mod eviction;
mod minimal;
mod pipeline;
mod strategies;
mod watch;
