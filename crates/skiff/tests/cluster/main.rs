//! Real clusters under test, seen from outside: `skiff up`, `kubectl`, HTTP. One binary, because linking
//! is what costs; each test makes a cluster of its own.

mod clients;
mod faults;
mod joining;
mod kubectl;
mod lifecycle;
mod nodes;
mod pods_run;
mod servers;
mod services;
mod stolen;
mod tool;
mod tunnel;
mod website;

/// The executable under test.
const SKIFF: &str = env!("CARGO_BIN_EXE_skiff");
