//! A histogram of any values that is counted under somebody else's lock, and the text of all histograms.

use std::fmt::Write as _;

/// Counts values in `N` buckets: one more than there are upper bounds.
#[derive(Clone)]
pub(crate) struct Buckets<const N: usize> {
    counts: [u64; N],
    sum: f64,
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self { counts: [0; N], sum: 0.0 }
    }
}

impl<const N: usize> Buckets<N> {
    pub(crate) fn observe(&mut self, bounds: &[f64], value: f64) {
        let at = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        self.counts[at] += 1;
        self.sum += value;
    }

    /// Writes the series `name{labels}`; nothing for one that counted nothing.
    pub(crate) fn write(&self, out: &mut String, (name, labels): (&str, &str), bounds: &[f64]) {
        write(out, (name, labels), bounds, self.counts.iter().copied(), self.sum);
    }
}

/// Writes a histogram; the counts are one more than the bounds.
pub(super) fn write(
    out: &mut String,
    (name, labels): (&str, &str),
    bounds: &[f64],
    counts: impl Iterator<Item = u64>,
    sum: f64,
) {
    let (mut seen, comma) = (0, if labels.is_empty() { "" } else { "," });
    let start = out.len();
    let edges = bounds.iter().map(edge).chain(["+Inf".to_owned()]);
    for (edge, count) in edges.zip(counts) {
        seen += count;
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{edge}\"}} {seen}");
    }
    if seen == 0 {
        return out.truncate(start);
    }
    let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {seen}");
}

/// A bound as Go prints it: `0.05`, `1000`, `2.592e+06`.
fn edge(bound: &f64) -> String {
    if *bound < 1e6 {
        return bound.to_string();
    }
    let text = format!("{bound:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{digits}e+{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn bounds_look_as_go_prints_them() {
        for (bound, text) in [
            (0.0, "0"),
            (0.05, "0.05"),
            (1.0, "1"),
            (1e5, "100000"),
            (1e6, "1e+06"),
            (2_592_000.0, "2.592e+06"),
        ] {
            assert_eq!(super::edge(&bound), text);
        }
    }
}
