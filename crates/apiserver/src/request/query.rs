//! The query string: decoded pairs in the order sent.
//!
//! Knows no parameter by meaning; the engine's parameters are read from the pairs elsewhere.

use std::{borrow::Cow, time::Duration};

/// The most pairs that are looked at; nothing in the API needs more.
const MOST_PAIRS: usize = 256;

/// Decoded query parameters.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Decodes `a=b&c=d`. Values follow the form encoding: `+` is a space.
    pub fn parse(query: &str) -> Self {
        let fields = query.split('&').filter(|field| !field.is_empty()).take(MOST_PAIRS);
        let decode = |text: &str| match plain(text) {
            Cow::Borrowed(text) => text.to_owned(),
            Cow::Owned(text) => text,
        };
        let pairs = fields.map(|field| {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            (decode(name), decode(value))
        });
        Self { pairs: pairs.collect() }
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Every value of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether `name` is set to something that reads as true; Kubernetes takes a bare name for true.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// All pairs.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

fn plain(text: &str) -> Cow<'_, str> {
    if text.contains(['%', '+']) { percent_decode(text, true).into() } else { text.into() }
}

/// Decodes `%xx`, and `+` as a space if `form`. Malformed escapes stay as they are; bytes that are no
/// UTF-8 become the replacement character.
pub fn percent_decode(text: &str, form: bool) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'%' => match (digit(at + 1), digit(at + 2)) {
                (Some(high), Some(low)) => {
                    out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                    at += 2;
                }
                _ => out.push(b'%'),
            },
            b'+' if form => out.push(b' '),
            other => out.push(*other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A time as Kubernetes writes it: `1h30m`, `1.5s`, `300ms`, `0`. None if it is no time, or a negative one.
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut seconds, mut rest) = (0.0, text);
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number * unit;
        rest = &rest[end..];
        if rest.is_empty() {
            return Duration::try_from_secs_f64(seconds).ok();
        }
    }
}

/// Encodes everything but unreserved characters, for use in a path segment or query value.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, millis) in
            [("1h30m", 5_400_000), ("1.5s", 1500), ("0", 0), ("32s", 32_000), ("1m5ms", 60_005)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "5", "s", "-1s", "1d", "1.2.3s", "1s ", "99999999999999999999999h"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn decodes_form_values() {
        let query = Query::parse("a=b%20c+d&e&f=%zz&a=2");
        assert_eq!(query.get("a"), Some("b c d"));
        assert_eq!(query.all("a").count(), 2);
        assert!(query.flag("e") && !query.flag("g"));
        assert_eq!(query.get("f"), Some("%zz"));
        assert!(!Query::parse("watch=0").flag("watch"));
        assert_eq!(percent_encode("a/b c"), "a%2Fb%20c");
    }
}
