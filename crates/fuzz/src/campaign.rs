//! Many cases of one test, each with a seed of its own. A case that panics is named by its seed; one that does not
//! end ends the process, which is the only way to tell of it.
//!
//! `SKIFF_FUZZ_SEED=n` runs one case alone. `SKIFF_FUZZ_SECONDS=n` goes on with fresh seeds for that long.

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rand::SeedableRng;

/// The source of randomness of a case.
pub type Rng = rand::rngs::StdRng;

/// How long one case may take, debug builds on a busy machine included; cases are meant for milliseconds.
const FOREVER: Duration = Duration::from_secs(60);

/// Runs `case` that many times, and on with fresh seeds for as long as the environment says.
///
/// # Panics
/// When a case does, after naming its seed.
pub fn campaign(name: &str, cases: u64, mut case: impl FnMut(&mut Rng)) {
    if let Some(seed) = number("SKIFF_FUZZ_SEED") {
        return case(&mut Rng::seed_from_u64(seed));
    }
    let first =
        name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let current = Arc::new(AtomicU64::new(first));
    watch(name.to_owned(), Arc::downgrade(&current));
    let mut run = |seed: u64| {
        current.store(seed, Ordering::Relaxed);
        let _named = Named { name, seed };
        case(&mut Rng::seed_from_u64(seed));
    };
    (0..cases).for_each(|number| run(first.wrapping_add(number)));
    let Some(seconds) = number("SKIFF_FUZZ_SECONDS").map(Duration::from_secs) else { return };
    let (begun, mut ran) = (Instant::now(), 0_u64);
    while begun.elapsed() < seconds {
        run(rand::random());
        ran += 1;
    }
    println!("{name}: {ran} further cases in {seconds:?}");
}

/// Runs one piece of work, which ends the process when it does not end.
pub fn alone<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let current = Arc::new(AtomicU64::new(0));
    watch(name.to_owned(), Arc::downgrade(&current));
    let done = work();
    drop(current);
    done
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Names the case if it ends in a panic.
struct Named<'a> {
    name: &'a str,
    seed: u64,
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: again with SKIFF_FUZZ_SEED={}", self.name, self.seed);
        }
    }
}

/// Ends the process when the campaign stays with one case.
fn watch(name: String, current: Weak<AtomicU64>) {
    std::thread::spawn(move || {
        let (mut seen, mut since) = (None, Instant::now());
        while let Some(seed) = current.upgrade().map(|seed| seed.load(Ordering::Relaxed)) {
            if seen != Some(seed) {
                (seen, since) = (Some(seed), Instant::now());
            } else if since.elapsed() > FOREVER {
                eprintln!("{name}: does not end with SKIFF_FUZZ_SEED={seed}");
                std::process::abort();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng as _;

    #[test]
    fn cases_differ_and_come_again() {
        let draw = || {
            let mut drawn = Vec::new();
            campaign("drawing", 20, |rng| drawn.push(rng.random::<u64>()));
            drawn
        };
        let first = draw();
        assert_eq!(first[..20], draw()[..20]);
        assert!(first.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
