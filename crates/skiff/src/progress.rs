//! What a person sees while a cluster starts: one line a step, with how long it took.

use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Prints steps to standard error; standard output stays for results.
pub(crate) struct Progress {
    started: Instant,
    live: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), live: std::io::stderr().is_terminal() }
    }

    /// A step that is done.
    pub(crate) fn done(&self, what: &str) {
        let mark = if self.live { "\u{1b}[32m✓\u{1b}[0m" } else { "✓" };
        self.line(&format!("{mark} {what}"));
    }

    fn line(&self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        let _ = writeln!(stderr, "{text}  ({:.2} s)", self.started.elapsed().as_secs_f64());
    }
}
