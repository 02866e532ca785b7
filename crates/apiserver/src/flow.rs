//! How many requests are worked on at once: one bound for reads, one for writes.
//!
//! Watches, proxied streams, administrators and components within the process are not counted: the first two
//! have no natural end, and the others bound themselves. Refuses to know what a request does.

use std::sync::Arc;

use meta::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub struct FlowOptions {
    /// Reads at once.
    pub max_reads: usize,
    /// Writes at once.
    pub max_writes: usize,
}

impl Default for FlowOptions {
    fn default() -> Self {
        Self { max_reads: 400, max_writes: 200 }
    }
}

/// Hands out places to requests.
#[derive(Clone)]
pub struct Flow {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

/// A place among the requests being worked on; given back when dropped.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Flow {
    /// Flow control within these bounds.
    pub fn new(options: FlowOptions) -> Self {
        Self {
            reads: Arc::new(Semaphore::new(options.max_reads)),
            writes: Arc::new(Semaphore::new(options.max_writes)),
        }
    }

    /// Takes a place at once or not at all.
    ///
    /// # Errors
    /// 429 with a delay of a second after which the client may try again.
    pub fn enter(&self, read: bool) -> Result<Place, Status> {
        let places = if read { &self.reads } else { &self.writes };
        places
            .clone()
            .try_acquire_owned()
            .map(Place)
            .map_err(|_| Status::too_many_requests("Too many requests, please try again later.", 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let flow = Flow::new(FlowOptions { max_reads: 1, max_writes: 1 });
        let place = flow.enter(true).expect("a place");
        assert_eq!(flow.enter(true).expect_err("full").code, 429);
        flow.enter(false).expect("writes are counted apart");
        drop(place);
        flow.enter(true).expect("a place again");
    }
}
