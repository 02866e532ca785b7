//! The two formats of time in objects: whole seconds (`Time`) and microseconds
//! (`MicroTime`), both RFC 3339 in UTC. Reads no clock: callers bring the time.

use jiff::Timestamp;

/// `2026-01-02T03:04:05Z`, fraction dropped: `creationTimestamp` and its like.
#[must_use]
pub fn seconds(time: Timestamp) -> String {
    let whole = Timestamp::from_second(time.as_second()).unwrap_or(time);
    format!("{whole:.0}")
}

/// `2026-01-02T03:04:05.123456Z`: lease renewals and event times.
#[must_use]
pub fn micros(time: Timestamp) -> String {
    let whole = Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time);
    format!("{whole:.6}")
}

/// Parses either format (any RFC 3339 time); `None` if it is none.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let time = parse("2026-01-02T03:04:05.987654321Z").unwrap();
        assert_eq!(seconds(time), "2026-01-02T03:04:05Z");
        assert_eq!(micros(time), "2026-01-02T03:04:05.987654Z");
        assert_eq!(micros(parse("2026-01-02T03:04:05Z").unwrap()), "2026-01-02T03:04:05.000000Z");
        assert_eq!(parse("2026-01-02T04:04:05+01:00"), parse("2026-01-02T03:04:05Z"));
        assert_eq!(parse("yesterday"), None);
    }
}
