//! Waiting fairly: queues among which flows are shuffle-sharded, served in the order of virtual time. Pure.
//!
//! Virtual time is work: seats × seconds. A queue's next request starts, virtually, where its last one ended; the
//! one that would end first is served first (KEP-1040). How long work takes is guessed when it starts and
//! corrected when it ends. Refuses to know seats that are in use, clocks and tasks.

use std::{collections::VecDeque, time::Duration};

/// What a request is thought to take before it has run.
const GUESS: f64 = 0.003;
/// The most cards a hand may have (upstream's limit).
const MOST_CARDS: usize = 15;

/// How requests of a level wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Number of queues.
    pub(super) queues: usize,
    /// Queues among which a flow's requests are spread.
    pub(super) hand: usize,
    /// Requests that may wait in one queue.
    pub(super) length: usize,
}

/// The queues of one level; `T` is who waits.
#[derive(Debug)]
pub(super) struct Queues<T> {
    shape: Shape,
    queues: Vec<Queue<T>>,
    /// Virtual time: where the request served last began.
    now: f64,
    ids: u64,
    waiting: usize,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Queue<T> {
    pub(super) waiting: VecDeque<Waiting<T>>,
    /// Seats of all that wait.
    pub(super) seats: u64,
    /// Where its next request begins, virtually.
    pub(super) next: f64,
    /// Requests that were served from it and run, and their seats.
    pub(super) executing: u32,
    pub(super) taken: u64,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    id: u64,
    pub(super) seats: u32,
    pub(super) waiter: T,
}

impl<T> Queue<T> {
    /// What all that wait are thought to take.
    pub(super) fn work(&self) -> f64 {
        self.seats as f64 * GUESS
    }
}

/// Where a request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) queue: usize,
    id: u64,
}

impl<T> Queues<T> {
    pub(super) fn new(shape: Shape) -> Self {
        let queue =
            |_| Queue { waiting: VecDeque::new(), seats: 0, next: 0.0, executing: 0, taken: 0 };
        let queues = (0..shape.queues.max(1)).map(queue).collect();
        Self { shape, queues, now: 0.0, ids: 0, waiting: 0 }
    }

    /// All of them.
    pub(super) fn all(&self) -> &[Queue<T>] {
        &self.queues
    }

    /// Requests that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// Seats of all requests that wait.
    pub(super) fn seats(&self) -> u64 {
        self.queues.iter().map(|queue| queue.seats).sum()
    }

    /// Lets a request wait in the least loaded queue of its flow's hand, or not if that queue is full.
    pub(super) fn enqueue(&mut self, flow: u64, seats: u32, waiter: T) -> Option<Spot> {
        let (mut hand, id) = ([0; MOST_CARDS], self.ids);
        let size = deal(flow, self.queues.len(), self.shape.hand, &mut hand);
        // Ties go to another queue of the hand each time.
        let turn = usize::try_from(id).unwrap_or(0);
        let chosen =
            (0..size).map(|at| hand[(at + turn) % size]).min_by_key(|&at| self.queues[at].seats)?;
        let queue = &mut self.queues[chosen];
        if queue.waiting.len() >= self.shape.length {
            return None;
        }
        if queue.waiting.is_empty() {
            queue.next = queue.next.max(self.now);
        }
        queue.waiting.push_back(Waiting { id, seats, waiter });
        queue.seats += u64::from(seats);
        self.ids += 1;
        self.waiting += 1;
        Some(Spot { queue: chosen, id })
    }

    /// Takes out the request that is next, if `fits` finds seats for it. Nobody overtakes one that is too wide.
    pub(super) fn serve(&mut self, fits: impl FnOnce(u32) -> bool) -> Option<T> {
        let ends = |queue: &Queue<T>| {
            queue.waiting.front().map(|first| queue.next + f64::from(first.seats) * GUESS)
        };
        let candidates = self.queues.iter_mut().filter_map(|queue| Some((ends(queue)?, queue)));
        let (_, queue) = candidates.min_by(|left, right| left.0.total_cmp(&right.0))?;
        let seats = queue.waiting.front()?.seats;
        if !fits(seats) {
            return None;
        }
        self.now = self.now.max(queue.next);
        queue.next += f64::from(seats) * GUESS;
        queue.seats -= u64::from(seats);
        queue.executing += 1;
        queue.taken += u64::from(seats);
        self.waiting -= 1;
        queue.waiting.pop_front().map(|first| first.waiter)
    }

    /// Takes out one that waits no longer. False if it was served already.
    pub(super) fn remove(&mut self, spot: Spot) -> bool {
        let queue = &mut self.queues[spot.queue];
        let Some(at) = queue.waiting.iter().position(|waiting| waiting.id == spot.id) else {
            return false;
        };
        if let Some(gone) = queue.waiting.remove(at) {
            queue.seats -= u64::from(gone.seats);
            self.waiting -= 1;
        }
        true
    }

    /// Corrects the guess about a request that was served from `queue`, now that it has run.
    pub(super) fn ran(&mut self, queue: usize, seats: u32, took: Duration) {
        let queue = &mut self.queues[queue];
        queue.next += f64::from(seats) * (took.as_secs_f64() - GUESS);
        queue.executing = queue.executing.saturating_sub(1);
        queue.taken = queue.taken.saturating_sub(seats.into());
    }
}

/// Deals `hand` different queues out of `deck` by the digits of `flow`; returns how many.
fn deal(mut flow: u64, deck: usize, hand: usize, cards: &mut [usize; MOST_CARDS]) -> usize {
    let size = hand.clamp(1, MOST_CARDS.min(deck));
    for at in 0..size {
        let left = (deck - at) as u64;
        let mut card = usize::try_from(flow % left).unwrap_or(0);
        flow /= left;
        // The n-th of those not dealt yet: the dealt ones, in order, push it up.
        for held in &cards[..at] {
            card += usize::from(card >= *held);
        }
        let place = cards[..at].partition_point(|held| *held < card);
        cards.copy_within(place..at, place + 1);
        cards[place] = card;
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { queues: 64, hand: 6, length: 50 };

    fn hand(flow: u64, deck: usize, size: usize) -> Vec<usize> {
        let mut cards = [0; MOST_CARDS];
        let size = deal(flow, deck, size, &mut cards);
        cards[..size].to_vec()
    }

    #[test]
    fn hands_hold_different_cards_of_the_whole_deck() {
        let mut seen = [false; 16];
        for flow in 0..5000_u64 {
            let cards = hand(flow.wrapping_mul(0x9e37_79b9_7f4a_7c15), 16, 4);
            assert!(cards.windows(2).all(|two| two[0] < two[1]), "{cards:?}");
            cards.iter().for_each(|card| seen[*card] = true);
        }
        assert!(seen.iter().all(|seen| *seen));
        assert_eq!(hand(7, 3, 3), [0, 1, 2]);
        assert_eq!(hand(7, 1, 8), [0]);
    }

    /// Serves one request after the other until none waits.
    fn order(queues: &mut Queues<&'static str>) -> String {
        std::iter::from_fn(|| queues.serve(|_| true)).collect()
    }

    /// A flow whose hand shares no queue with that of flow 0.
    fn stranger(shape: Shape) -> u64 {
        let zero = hand(0, shape.queues, shape.hand);
        let apart = |flow: &u64| {
            hand(*flow, shape.queues, shape.hand).iter().all(|card| !zero.contains(card))
        };
        (1..).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).find(apart).expect("one")
    }

    #[test]
    fn a_mouse_does_not_wait_for_an_elephant() {
        let mut queues = Queues::new(Shape { hand: 1, ..SHAPE });
        let other = stranger(Shape { hand: 1, ..SHAPE });
        for _ in 0..20 {
            queues.enqueue(0, 1, "E").expect("room");
        }
        queues.enqueue(other, 1, "m").expect("room");
        let served = order(&mut queues);
        assert!(served.find('m').expect("served") <= 1, "{served}");
        assert_eq!(served.len(), 21);
    }

    #[test]
    fn who_took_long_waits_longer_the_next_time() {
        let shape = Shape { hand: 1, ..SHAPE };
        let mut queues = Queues::new(shape);
        let (slow, quick) = (0, stranger(shape));
        for _ in 0..3 {
            queues.enqueue(slow, 1, "s").expect("room");
            queues.enqueue(quick, 1, "q").expect("room");
        }
        let first = queues.serve(|_| true).expect("one");
        let (own, other) = if first == "s" { (slow, "q") } else { (quick, "s") };
        let queue = hand(own, shape.queues, 1)[0];
        queues.ran(queue, 1, Duration::from_secs(1));
        assert_eq!(order(&mut queues)[..3], other.repeat(3));
    }

    #[test]
    fn full_queues_refuse_and_places_come_back() {
        let mut queues = Queues::new(Shape { queues: 1, hand: 1, length: 2 });
        let first = queues.enqueue(1, 3, "a").expect("room");
        queues.enqueue(2, 1, "b").expect("room");
        assert_eq!(queues.enqueue(3, 1, "c"), None);
        assert_eq!((queues.len(), queues.seats()), (2, 4));
        assert_eq!(queues.serve(|seats| seats < 3), None, "nobody overtakes");
        assert!(queues.remove(first) && !queues.remove(first));
        assert_eq!(queues.serve(|seats| seats < 3), Some("b"));
        assert_eq!((queues.len(), queues.seats()), (0, 0));
    }

    #[test]
    fn a_flow_that_was_away_gains_nothing_by_it() {
        let shape = Shape { hand: 1, ..SHAPE };
        let mut queues = Queues::new(shape);
        for _ in 0..10 {
            queues.enqueue(0, 1, "a").expect("room");
            assert_eq!(queues.serve(|_| true), Some("a"));
        }
        let late = stranger(shape);
        for _ in 0..4 {
            queues.enqueue(0, 1, "a").expect("room");
            queues.enqueue(late, 1, "l").expect("room");
        }
        let served = order(&mut queues);
        assert!(served[..6].contains('a'), "{served}");
    }
}
