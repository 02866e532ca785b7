//! `cargo xtask bench`: builds what is measured as it is released, then measures it. The benches
//! themselves are the `bench` crate's.

use std::process::Command;

use anyhow::{Context, ensure};

/// Builds skiff, the load generator and the images, then runs the bench that `arguments` name.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    crate::images::run()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let features = "skiff/jemalloc,skiff-bench/jemalloc";
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "-p", "skiff", "-p", "skiff-bench", "--features", features]);
    ensure!(build.status().context("cannot run cargo")?.success(), "the release build failed");
    let status = Command::new("target/release/skiff-bench")
        .args(arguments)
        .status()
        .context("cannot run the load generator")?;
    ensure!(status.success(), "the bench failed");
    Ok(())
}
