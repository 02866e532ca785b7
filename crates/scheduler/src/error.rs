//! Why a scheduler ends without being told to.

/// Fatal failures; everything that can be tried again is.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// A watch ended for good although nobody asked for it.
    #[error("the watch on {0} ended")]
    WatchEnded(&'static str),
}
