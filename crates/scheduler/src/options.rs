//! Settings of the scheduler.

use std::time::Duration;

/// How the scheduler behaves; [`Default`] is what upstream does.
#[derive(Clone, Debug)]
pub struct SchedulerOptions {
    /// Pods that name this scheduler are its own.
    pub name: String,
    /// Bindings under way at once.
    pub parallel_bindings: usize,
    /// A pod waits this long after its first failed attempt; twice that after the second, ….
    pub initial_backoff: Duration,
    /// No pod waits longer between attempts that something woke it for.
    pub max_backoff: Duration,
    /// A pod that nothing wakes is tried again after this long.
    pub flush_after: Duration,
    /// Take part in leader election under this identity; `None`: there is no other scheduler.
    pub leader_identity: Option<String>,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            name: "default-scheduler".to_owned(),
            parallel_bindings: 128,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10),
            flush_after: Duration::from_secs(300),
            leader_identity: None,
        }
    }
}
