//! Generates the compact tables of API facts that are checked in beside the code which reads them.
//!
//! Facts are names, numbers, keys and rules; prose descriptions are never carried over.

mod openapi;
mod protobuf;
mod rbac;
mod rows;
mod schema;

use std::path::Path;

use anyhow::{Context, ensure};

/// Runs every generator against `reference`.
pub(crate) fn run(reference: &Path) -> anyhow::Result<()> {
    let reference = reference
        .canonicalize()
        .with_context(|| format!("reference directory {}", reference.display()))?;
    ensure!(
        reference.join("resources.json").is_file(),
        "{} holds no resources.json",
        reference.display()
    );
    // One line a generator.
    openapi::generate(&reference)?;
    protobuf::generate(&reference)?;
    rbac::generate(&reference)?;
    rows::generate(&reference)?;
    schema::generate(&reference)?;
    Ok(())
}
