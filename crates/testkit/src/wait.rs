//! Waiting for conditions, never for a time.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(50);

/// Waits until `condition` holds; panics with `what` when `timeout` passes first.
pub fn eventually(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    eventually_ok(what, timeout, || {
        if condition() { Ok(()) } else { Err("it does not hold".to_owned()) }
    });
}

/// Waits until `attempt` succeeds and returns its value; panics with the last error when `timeout`
/// passes first.
pub fn eventually_ok<T, E: std::fmt::Display>(
    what: &str,
    timeout: Duration,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if Instant::now() >= deadline => {
                panic!("waited {timeout:?} for {what}: {error}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
