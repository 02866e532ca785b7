//! What is counted about the requests of one schema at one level, and the text of it.
//!
//! Names are upstream's (`apiserver_flowcontrol_…`).

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::Named;
use crate::metrics::{Histogram, describe};

static BOUNDS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its queue is full.
    QueueFull,
    /// There is no seat, and no queue either.
    ConcurrencyLimit,
    /// It has waited long enough.
    TimeOut,
    /// Its client has gone away.
    Cancelled,
}

const REASONS: [(Reason, &str); 4] = [
    (Reason::QueueFull, "queue-full"),
    (Reason::ConcurrencyLimit, "concurrency-limit"),
    (Reason::TimeOut, "time-out"),
    (Reason::Cancelled, "cancelled"),
];

/// The counts.
pub(super) struct Counts {
    dispatched: AtomicU64,
    executing: AtomicU64,
    /// Seats beyond the first of each that executes.
    extra_seats: AtomicU64,
    waiting: AtomicU64,
    waiting_seats: AtomicU64,
    rejected: [AtomicU64; 4],
    /// Waits that ended with a seat, and those that did not.
    waited: Histogram<13>,
    given_up: Histogram<13>,
    ran: Histogram<13>,
}

impl Default for Counts {
    fn default() -> Self {
        let zero = AtomicU64::default;
        let (waited, given_up) = (Histogram::new(&BOUNDS), Histogram::new(&BOUNDS));
        Self {
            dispatched: zero(),
            executing: zero(),
            extra_seats: zero(),
            waiting: zero(),
            waiting_seats: zero(),
            rejected: [zero(), zero(), zero(), zero()],
            waited,
            given_up,
            ran: Histogram::new(&BOUNDS),
        }
    }
}

impl Counts {
    pub(super) fn begin(&self, seats: u32) {
        self.dispatched.fetch_add(1, Relaxed);
        self.executing.fetch_add(1, Relaxed);
        if seats > 1 {
            self.extra_seats.fetch_add(u64::from(seats) - 1, Relaxed);
        }
    }

    pub(super) fn end(&self, seats: u32, took: Duration) {
        self.executing.fetch_sub(1, Relaxed);
        if seats > 1 {
            self.extra_seats.fetch_sub(u64::from(seats) - 1, Relaxed);
        }
        self.ran.observe(took);
    }

    pub(super) fn waiting(&self, seats: u32, begins: bool) {
        let seats = u64::from(seats);
        if begins {
            self.waiting.fetch_add(1, Relaxed);
            self.waiting_seats.fetch_add(seats, Relaxed);
        } else {
            self.waiting.fetch_sub(1, Relaxed);
            self.waiting_seats.fetch_sub(seats, Relaxed);
        }
    }

    pub(super) fn wait(&self, took: Duration, served: bool) {
        if served { self.waited.observe(took) } else { self.given_up.observe(took) }
    }

    pub(super) fn reject(&self, reason: Reason) {
        self.refusals(reason).fetch_add(1, Relaxed);
    }

    fn refusals(&self, reason: Reason) -> &AtomicU64 {
        let at = REASONS.iter().position(|(known, _)| *known == reason).unwrap_or(0);
        &self.rejected[at]
    }

    pub(super) fn rejected(&self, reason: Reason) -> u64 {
        self.refusals(reason).load(Relaxed)
    }

    pub(super) fn executing(&self) -> u64 {
        self.executing.load(Relaxed)
    }

    pub(super) fn dispatched(&self) -> u64 {
        self.dispatched.load(Relaxed)
    }
}

/// Writes the series of all schemas.
pub(super) fn write(out: &mut String, schemas: &[Named<&Counts>]) {
    let mut simple = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Counts) -> u64| {
        let name = format!("apiserver_flowcontrol_{name}");
        describe(out, &name, kind, help);
        for one in schemas {
            let _ = writeln!(out, "{name}{{{}}} {}", one.labels(), value(one.what));
        }
    };
    simple("dispatched_requests_total", "counter", "Requests that got seats.", &|counts| {
        counts.dispatched.load(Relaxed)
    });
    simple("current_executing_requests", "gauge", "Requests on seats.", &|counts| {
        counts.executing.load(Relaxed)
    });
    simple("current_executing_seats", "gauge", "Seats that are taken.", &|counts| {
        counts.executing.load(Relaxed) + counts.extra_seats.load(Relaxed)
    });
    simple("current_inqueue_requests", "gauge", "Requests that wait.", &|counts| {
        counts.waiting.load(Relaxed)
    });
    simple("current_inqueue_seats", "gauge", "Seats that are waited for.", &|counts| {
        counts.waiting_seats.load(Relaxed)
    });
    let name = "apiserver_flowcontrol_rejected_requests_total";
    describe(out, name, "counter", "Requests that were not let in.");
    for one in schemas {
        for ((_, reason), count) in REASONS.iter().zip(&one.what.rejected) {
            let count = count.load(Relaxed);
            if count > 0 {
                let _ = writeln!(out, "{name}{{{},reason=\"{reason}\"}} {count}", one.labels());
            }
        }
    }
    let name = "apiserver_flowcontrol_request_wait_duration_seconds";
    describe(out, name, "histogram", "Time spent waiting for seats.");
    for one in schemas {
        let Counts { dispatched, waited, given_up, .. } = one.what;
        let at_once = dispatched.load(Relaxed).saturating_sub(waited.count());
        waited.write(out, name, &format!("execute=\"true\",{}", one.labels()), at_once);
        given_up.write(out, name, &format!("execute=\"false\",{}", one.labels()), 0);
    }
    let name = "apiserver_flowcontrol_request_execution_seconds";
    describe(out, name, "histogram", "Time spent on seats.");
    for one in schemas {
        one.what.ran.write(out, name, &one.labels(), 0);
    }
}
