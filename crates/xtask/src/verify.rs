//! `cargo xtask verify`: the checks of CI apart from the tests, in the order that fails fastest.

use std::process::Command;

use anyhow::{Context, ensure};

/// Runs every check and stops at the first that fails.
pub(crate) fn run() -> anyhow::Result<()> {
    cargo(&["fmt", "--all", "--check"], &[])?;
    crate::layers::run()?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])?;
    cargo(
        &["doc", "--workspace", "--no-deps", "--document-private-items"],
        &[("RUSTDOCFLAGS", "-D warnings")],
    )
}

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    println!("cargo {}", arguments.join(" "));
    let status = Command::new("cargo")
        .args(arguments)
        .envs(environment.iter().copied())
        .status()
        .with_context(|| format!("start cargo {}", arguments[0]))?;
    ensure!(status.success(), "cargo {} failed", arguments.join(" "));
    Ok(())
}
