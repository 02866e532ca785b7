//! The text of what is known about levels.

use std::{fmt::Write as _, sync::Arc};

use super::Lane;
use crate::metrics::describe;

/// Writes the series of all levels.
pub(super) fn levels(out: &mut String, lanes: &[Arc<Lane>]) {
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&Lane) -> f64| {
        let name = format!("apiserver_flowcontrol_{name}");
        describe(out, &name, "gauge", help);
        for lane in lanes {
            let _ = writeln!(out, "{name}{{priority_level=\"{}\"}} {}", lane.name, value(lane));
        }
    };
    gauge("nominal_limit_seats", "Seats by shares.", &|lane| lane.limits.nominal.into());
    gauge("lower_limit_seats", "Seats that are not lent.", &|lane| lane.limits.lower.into());
    gauge("upper_limit_seats", "Seats with all that may be borrowed.", &|lane| {
        lane.limits.upper.into()
    });
    gauge("current_limit_seats", "Seats after borrowing.", &|lane| lane.level.seats().0.into());
    gauge("demand_seats_high_watermark", "The most seats wanted in the last period.", &|lane| {
        lane.demand.lock().0.peak.into()
    });
    gauge("demand_seats_average", "Seats wanted on average in the last period.", &|lane| {
        lane.demand.lock().0.average
    });
    gauge("demand_seats_smoothed", "Demand by which seats are borrowed.", &|lane| {
        lane.demand.lock().1.0
    });
}
