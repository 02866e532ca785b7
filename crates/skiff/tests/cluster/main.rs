//! Real clusters under test, seen from outside: `skiff up`, `kubectl`, HTTP. One binary, because linking
//! is what costs; each test makes a cluster of its own.

mod faults;
mod kubectl;
mod pods_run;
mod services;
mod tool;
mod website;

/// The executable under test.
const SKIFF: &str = env!("CARGO_BIN_EXE_skiff");
