//! One line of a log file: `<time> <stream> <F|P> <text>` (the CRI's format). Pure.

use jiff::Timestamp;

/// A line taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The time as written.
    pub(super) time: &'a [u8],
    /// `stdout` or `stderr`.
    pub(super) stream: &'a [u8],
    /// The line goes on in the next one.
    pub(super) partial: bool,
    /// The text, without the line's end.
    pub(super) text: &'a [u8],
}

impl<'a> Line<'a> {
    /// Takes a line apart; `None` if it has not the format.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut parts = line.splitn(4, |b| *b == b' ');
        let (time, stream, tags) = (parts.next()?, parts.next()?, parts.next()?);
        let text = parts.next().unwrap_or_default();
        let partial = tags.split(|b| *b == b':').next()? == b"P";
        Some(Self { time, stream, partial, text })
    }

    /// The time it was written.
    pub(super) fn at(&self) -> Option<Timestamp> {
        std::str::from_utf8(self.time).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        let line = Line::parse(b"2026-01-02T03:04:05.6Z stderr P hello  world\n").unwrap();
        assert_eq!(
            (line.stream, line.partial, line.text),
            (&b"stderr"[..], true, &b"hello  world"[..])
        );
        assert_eq!(line.at().unwrap().as_second(), 1_767_323_045);
        assert_eq!(Line::parse(b"2026-01-02T03:04:05Z stdout F \n").unwrap().text, b"");
        assert_eq!(Line::parse(b"garbage"), None);
    }
}
