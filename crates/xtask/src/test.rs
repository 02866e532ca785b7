//! `cargo xtask test`: every check and every test, closed by one line that counts.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// How many tests of different crates run beside each other is cargo's business; within a crate,
/// clusters are heavy enough that a few at a time are fastest.
const TEST_THREADS: &str = "--test-threads=3";

/// Runs `verify`, then all tests, and prints `N passed, N failed`.
pub(crate) fn run() -> anyhow::Result<()> {
    crate::verify::run()?;
    let mut child = Command::new("cargo")
        .args(["test", "--workspace", "--no-fail-fast", "--", TEST_THREADS])
        .stdout(Stdio::piped())
        .spawn()
        .context("start cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    let mut total = Counts::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("read the output of cargo test")?;
        println!("{line}");
        total.add(&line);
    }
    let status = child.wait().context("wait for cargo test")?;
    println!("{} passed, {} failed", total.passed, total.failed);
    if !status.success() {
        bail!("tests failed");
    }
    Ok(())
}

#[derive(Default, Debug, PartialEq)]
struct Counts {
    passed: u64,
    failed: u64,
}

impl Counts {
    /// Adds what a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …` says.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        for part in rest.split([';', '.']) {
            match part.trim().split_once(' ') {
                Some((count, "passed")) => self.passed += count.parse::<u64>().unwrap_or(0),
                Some((count, "failed")) => self.failed += count.parse::<u64>().unwrap_or(0),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn result_lines_add_up() {
        let mut counts = Counts::default();
        counts.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s");
        counts.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s");
        counts.add("test wait::result ... ok");
        assert_eq!(counts, Counts { passed: 4, failed: 2 });
    }
}
