//! Who has a group of addresses: what a node does about the lease it sees.
//!
//! Pure, on the node's own clock: a lease is over when it has been the same for its duration.
//! Nodes come in an order that is the group's own; those further down wait a moment longer, so
//! that one takes what is free and the others see it taken.

use std::time::Duration;

use tokio::time::Instant;

/// How long others wait after the last renewal they saw.
pub(super) const LEASE: Duration = Duration::from_millis(1800);
/// How often the holder renews.
pub(super) const RENEW: Duration = Duration::from_millis(500);
/// How much longer each further candidate waits.
const TURN: Duration = Duration::from_millis(150);
/// How long the first candidate must have been one before the holder leaves the group to it.
const SETTLED: Duration = Duration::from_secs(10);

/// What a node sees of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) me: &'a str,
    pub(super) candidates: &'a [String],
    /// Who has it, if anybody.
    pub(super) holder: Option<&'a str>,
    /// Since when the lease is as it is.
    pub(super) unchanged: Instant,
    /// When we last renewed it.
    pub(super) renewed: Option<Instant>,
    /// Since when the candidates are these.
    pub(super) settled: Instant,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// Nothing; we have it.
    Keep,
    /// Nothing; somebody else has it, or somebody else's turn it is.
    Wait,
    /// Take it.
    Take,
    /// Say again that we have it.
    Renew,
    /// Leave it to others.
    Release,
}

/// Decides.
pub(super) fn decide(seen: Seen<'_>, now: Instant) -> Move {
    let rank = seen.candidates.iter().position(|candidate| candidate == seen.me);
    if seen.holder == Some(seen.me) {
        let settled = now.duration_since(seen.settled) >= SETTLED;
        return match rank {
            None => Move::Release,
            Some(1..) if settled => Move::Release,
            Some(_) => match seen.renewed {
                Some(at) if now.duration_since(at) < RENEW => Move::Keep,
                _ => Move::Renew,
            },
        };
    }
    let Some(rank) = rank else { return Move::Wait };
    let turn = TURN * u32::try_from(rank).unwrap_or(u32::MAX).min(20);
    let free_for = match seen.holder {
        None => now.duration_since(seen.unchanged),
        Some(_) => match now.duration_since(seen.unchanged).checked_sub(LEASE) {
            Some(over) => over,
            None => return Move::Wait,
        },
    };
    if free_for >= turn { Move::Take } else { Move::Wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(holder: Option<&str>, me: &str, age: u64, renewed: Option<u64>, settled: u64) -> Move {
        let start = Instant::now();
        let now = start + Duration::from_secs(100);
        let ago = |millis| now - Duration::from_millis(millis);
        let candidates = ["a", "b", "c"].map(str::to_owned);
        let seen = Seen {
            me,
            candidates: &candidates,
            holder,
            unchanged: ago(age),
            renewed: renewed.map(ago),
            settled: ago(settled),
        };
        decide(seen, now)
    }

    #[test]
    fn what_is_free_is_taken_in_turn() {
        assert_eq!(check(None, "a", 0, None, 0), Move::Take);
        assert_eq!(check(None, "c", 100, None, 0), Move::Wait);
        assert_eq!(check(None, "c", 300, None, 0), Move::Take);
        assert_eq!(check(Some("b"), "a", 1000, None, 0), Move::Wait);
        assert_eq!(check(Some("b"), "a", 1800, None, 0), Move::Take);
        assert_eq!(check(Some("a"), "b", 1800, None, 0), Move::Wait);
        assert_eq!(check(Some("a"), "b", 1950, None, 0), Move::Take);
        assert_eq!(check(None, "stranger", 5000, None, 0), Move::Wait);
    }

    #[test]
    fn the_holder_renews_and_leaves_it_to_the_first() {
        assert_eq!(check(Some("a"), "a", 0, Some(100), 60_000), Move::Keep);
        assert_eq!(check(Some("a"), "a", 0, Some(600), 60_000), Move::Renew);
        assert_eq!(check(Some("a"), "a", 0, None, 0), Move::Renew);
        assert_eq!(check(Some("b"), "b", 0, Some(100), 5_000), Move::Keep);
        assert_eq!(check(Some("b"), "b", 0, Some(100), 10_000), Move::Release);
        assert_eq!(check(Some("x"), "x", 0, Some(100), 0), Move::Release);
    }
}
