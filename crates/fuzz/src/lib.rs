//! Bad input for tests: campaigns of damaged bytes and objects against a decoder, and what it costs.
//!
//! Knows how inputs are damaged, repeated and measured, and nothing of what any decoder should say. Nothing of
//! the product imports it.
//!
//! - [`campaign`](mod@campaign): many cases, each with a seed of its own; a failing one is named and can be run alone.
//! - [`mutate`]: bytes and JSON, slightly or badly damaged.
//! - [`object`]: objects of built-in types, filled at random, and the places in them.
//! - [`memory`]: how much a decoder holds at once.

pub mod campaign;
pub mod memory;
pub mod mutate;
pub mod object;

pub use campaign::{Rng, alone, campaign};
