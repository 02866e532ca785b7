//! How many seats a priority level has: its share of the server's, and what levels lend each other. Pure.
//!
//! Follows KEP-1040: limits are adjusted to demand now and then, within what each level lends and may borrow.

use serde::Deserialize;

/// How fast a past demand is forgotten, a period (half of it in five minutes of ten-second periods).
const SMOOTHING: f64 = 0.977;

/// What a level's object says about seats.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Shares {
    pub(super) nominal_concurrency_shares: Option<i32>,
    pub(super) lendable_percent: Option<i32>,
    pub(super) borrowing_limit_percent: Option<i32>,
}

/// Seats of a level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Its share of the server's.
    pub(crate) nominal: u32,
    /// What it does not lend.
    pub(crate) lower: u32,
    /// The most it may have with what it borrows.
    pub(crate) upper: u32,
}

/// What was wanted of a level during a period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Demand {
    /// The most seats at one moment.
    pub(crate) peak: u32,
    /// Seats on average.
    pub(crate) average: f64,
}

/// Demand over several periods: follows a rise at once and a fall slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Smoothed(pub(crate) f64);

impl Smoothed {
    pub(super) fn update(&mut self, demand: Demand) {
        // Of independent arrivals, the number present varies by the root of its average.
        let spread = demand.average.sqrt().min(f64::from(demand.peak) - demand.average).max(0.0);
        let envelope = demand.average + spread;
        self.0 = envelope.max(SMOOTHING * self.0 + (1.0 - SMOOTHING) * envelope);
    }
}

/// Divides `total` seats by shares. Rounded up, so that the sum may be a little more.
pub(super) fn limits(total: u32, shares: &[Shares]) -> Vec<Limits> {
    let of = |shares: &Shares| f64::from(shares.nominal_concurrency_shares.unwrap_or(0).max(0));
    let sum: f64 = shares.iter().map(of).sum();
    let percent =
        |nominal: u32, percent: i32| round(f64::from(nominal) * f64::from(percent.max(0)) / 100.0);
    let one = |shares: &Shares| {
        let nominal =
            if sum > 0.0 { round((f64::from(total) * of(shares) / sum).ceil()) } else { 0 };
        let lent = percent(nominal, shares.lendable_percent.unwrap_or(0)).min(nominal);
        let borrowed = shares.borrowing_limit_percent.map_or(total, |most| percent(nominal, most));
        Limits { nominal, lower: nominal - lent, upper: nominal.saturating_add(borrowed) }
    };
    shares.iter().map(one).collect()
}

/// A level as borrowing sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Party {
    pub(super) exempt: bool,
    pub(super) limits: Limits,
    pub(super) peak: u32,
    pub(super) smoothed: f64,
}

/// The seats each level gets now.
pub(super) fn borrow(parties: &[Party]) -> Vec<u32> {
    // What exempt levels have used is not there to be shared.
    let exempt = |party: &Party| party.limits.lower.max(party.peak);
    let total: u32 = parties.iter().map(|party| party.limits.nominal).sum();
    let taken: u32 = parties.iter().filter(|party| party.exempt).map(exempt).sum();
    let left = total.saturating_sub(taken);
    // Nobody is lent away what it has just used, up to its own share.
    let least = |party: &Party| party.limits.lower.max(party.limits.nominal.min(party.peak));
    let limited = || parties.iter().filter(|party| !party.exempt);
    let lower: u32 = limited().map(|party| party.limits.lower).sum();
    let wanted: u32 = limited().map(least).sum();
    let seats: Box<dyn Fn(&Party) -> f64> = if left <= lower {
        Box::new(|party| f64::from(party.limits.lower))
    } else if left <= wanted {
        let part = f64::from(left - lower) / f64::from(wanted - lower);
        Box::new(move |party| {
            let lower = party.limits.lower;
            f64::from(lower) + part * f64::from(least(party) - lower)
        })
    } else {
        let clamp = move |party: &Party, part: f64| {
            let target = party.smoothed.max(f64::from(least(party))).max(0.001);
            (part * target).clamp(f64::from(least(party)), f64::from(party.limits.upper))
        };
        let part =
            proportion(f64::from(total), |part| limited().map(|party| clamp(party, part)).sum());
        Box::new(move |party| clamp(party, part))
    };
    parties
        .iter()
        .map(|party| if party.exempt { exempt(party) } else { round(seats(party)) })
        .collect()
}

/// Where a rising function reaches `total`, or as far as it rises.
fn proportion(total: f64, sum: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while sum(high) < total && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if sum(middle) < total { low = middle } else { high = middle }
    }
    high
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn round(seats: f64) -> u32 {
    seats.round().clamp(0.0, f64::from(u32::MAX)) as u32
}

/// The most seats one request may have of a level whose flows have hands of so many queues.
pub(super) fn widest(nominal: u32, hand: usize) -> u32 {
    let hand = u32::try_from(hand.max(1)).unwrap_or(u32::MAX);
    round((f64::from(nominal) * 0.15).ceil()).min(nominal / hand).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(nominal: i32, lendable: i32) -> Shares {
        Shares {
            nominal_concurrency_shares: Some(nominal),
            lendable_percent: Some(lendable),
            borrowing_limit_percent: None,
        }
    }

    #[test]
    fn the_servers_seats_are_divided_by_shares() {
        // The default levels of a server with 600 seats, as Kubernetes' documentation has them.
        let all = [(30, 33), (40, 25), (10, 0), (40, 50), (100, 90), (20, 50), (5, 0), (0, 0)];
        let limits = limits(600, &all.map(|(nominal, lendable)| shares(nominal, lendable)));
        let nominal: Vec<u32> = limits.iter().map(|limits| limits.nominal).collect();
        assert_eq!(nominal, [74, 98, 25, 98, 245, 49, 13, 0]);
        assert_eq!(limits[4], Limits { nominal: 245, lower: 24, upper: 845 });
        assert_eq!(super::limits(10, &[shares(0, 0)])[0].nominal, 0);
        assert_eq!((widest(245, 6), widest(13, 1), widest(3, 6)), (37, 2, 1));
    }

    fn party(nominal: u32, lower: u32, peak: u32, smoothed: f64) -> Party {
        let limits = Limits { nominal, lower, upper: 1000 };
        Party { exempt: false, limits, peak, smoothed }
    }

    #[test]
    fn who_needs_more_gets_what_others_lend() {
        let seats = borrow(&[party(100, 10, 0, 0.0), party(100, 50, 150, 120.0)]);
        assert_eq!(seats.iter().sum::<u32>(), 200);
        assert!(seats[0] < 20, "idle: most of what it lends is away");
        let seats = borrow(&[party(100, 10, 80, 60.0), party(100, 50, 150, 120.0)]);
        assert!(seats[0] >= 80 && seats[1] >= 100, "{seats:?}");
    }

    #[test]
    fn what_exempt_levels_use_is_missing_elsewhere() {
        let exempt = Party { exempt: true, ..party(0, 0, 120, 0.0) };
        let seats = borrow(&[exempt, party(100, 40, 90, 90.0), party(100, 40, 20, 20.0)]);
        assert_eq!(seats, [120, 40, 40]);
        let exempt = Party { peak: 90, ..exempt };
        let seats = borrow(&[exempt, party(100, 40, 90, 90.0), party(100, 40, 20, 20.0)]);
        assert_eq!(seats, [90, 70, 40]);
    }

    #[test]
    fn demand_is_forgotten_slowly() {
        let mut smoothed = Smoothed::default();
        smoothed.update(Demand { peak: 20, average: 16.0 });
        assert_eq!(smoothed.0, 20.0);
        for _ in 0..30 {
            smoothed.update(Demand::default());
        }
        assert!(smoothed.0 > 9.0 && smoothed.0 < 11.0, "{}", smoothed.0);
    }
}
