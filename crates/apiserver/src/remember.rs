//! Answers that are remembered for a while, by the digest of the question. Bounded.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// The digest of a question.
pub(crate) type Digest = [u8; 32];

/// What is remembered.
pub(crate) struct Remember<V> {
    most: usize,
    known: Mutex<HashMap<Digest, (Instant, V)>>,
}

impl<V: Clone> Remember<V> {
    /// Remembers at most so many answers.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, known: Mutex::default() }
    }

    /// The answer, while it holds.
    pub(crate) fn get(&self, question: &Digest) -> Option<V> {
        let known = self.known.lock();
        let (until, answer) = known.get(question)?;
        (*until > Instant::now()).then(|| answer.clone())
    }

    /// Remembers an answer for so long. Answers that hold are not pushed out by new ones.
    pub(crate) fn put(&self, question: Digest, holds: Duration, answer: V) {
        if holds.is_zero() {
            return;
        }
        let (now, mut known) = (Instant::now(), self.known.lock());
        if known.len() >= self.most {
            known.retain(|_, (until, _)| *until > now);
        }
        if known.len() < self.most {
            known.insert(question, (now + holds, answer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_hold_for_a_while_and_not_too_many() {
        let known = Remember::new(2);
        known.put([1; 32], Duration::from_secs(60), "a");
        known.put([2; 32], Duration::ZERO, "b");
        assert_eq!((known.get(&[1; 32]), known.get(&[2; 32])), (Some("a"), None));
        known.put([2; 32], Duration::from_nanos(1), "b");
        known.put([3; 32], Duration::from_secs(60), "c");
        assert_eq!((known.get(&[2; 32]), known.get(&[3; 32])), (None, Some("c")));
        known.put([4; 32], Duration::from_secs(60), "d");
        assert_eq!((known.get(&[4; 32]), known.get(&[1; 32])), (None, Some("a")));
    }
}
