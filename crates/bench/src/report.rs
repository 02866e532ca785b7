//! Figures as a table: what was measured beside what was promised and what Kubernetes does.

use std::time::Duration;

/// One figure.
struct Row {
    what: String,
    peer: String,
    budget: String,
    measured: String,
    verdict: &'static str,
}

/// The figures of one bench.
#[derive(Default)]
pub(crate) struct Report(Vec<Row>);

/// Whether a budget is the most or the least that is allowed.
#[derive(Clone, Copy)]
pub(crate) enum Budget {
    AtMost(f64),
    AtLeast(f64),
    /// Told for comparison only.
    None,
}

impl Report {
    /// Adds a figure in `unit`, with what Kubernetes reaches (`""` where that was not measured).
    pub(crate) fn add(
        &mut self,
        what: &str,
        peer: &str,
        budget: Budget,
        measured: f64,
        unit: &str,
    ) {
        let (budget, met) = match budget {
            Budget::AtMost(most) => (format!("≤ {} {unit}", number(most)), Some(measured <= most)),
            Budget::AtLeast(least) => {
                (format!("≥ {} {unit}", number(least)), Some(measured >= least))
            }
            Budget::None => (String::new(), None),
        };
        self.0.push(Row {
            what: what.to_owned(),
            peer: peer.to_owned(),
            budget,
            measured: format!("{} {unit}", number(measured)),
            verdict: met.map_or("", |met| if met { "met" } else { "MISSED" }),
        });
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        let head = ["", "Kubernetes", "budget", "skiff", ""].map(str::to_owned);
        let rows: Vec<[String; 5]> = std::iter::once(head)
            .chain(self.0.iter().map(|row| {
                [&row.what, &row.peer, &row.budget, &row.measured, &row.verdict.to_owned()]
                    .map(String::clone)
            }))
            .collect();
        let width = |column: usize| {
            rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths: [usize; 5] = std::array::from_fn(width);
        for [what, peer, budget, measured, verdict] in &rows {
            let line = format!(
                "{what:<0$}  {peer:>1$}  {budget:>2$}  {measured:>3$}  {verdict}",
                widths[0], widths[1], widths[2], widths[3],
            );
            println!("{}", line.trim_end());
        }
    }
}

/// Three digits are all that a measurement is worth.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 || value == value.trunc() => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// The middle of several measurements, in seconds.
pub(crate) fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, Duration::as_secs_f64)
}

/// Bytes as megabytes (10^6).
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0513, 0.5, 12.34, 1234.5, 80.0].map(number);
        assert_eq!(shown, ["0.05", "0.50", "12.3", "1234", "80"]);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let mut times = [3, 1, 2].map(Duration::from_secs);
        assert!((median(&mut times) - 2.0).abs() < f64::EPSILON);
    }
}
