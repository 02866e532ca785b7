//! How cells spell ages, lists, maps and selectors.

use jiff::Timestamp;
use schema::View;
use serde_json::{Map, Value};

/// A span of seconds, as coarse as a person wants it: `5m30s`, `3h`, `2d4h`.
pub(super) fn duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, unit: &str, small: i64, rest: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{rest}"),
    };
    match seconds {
        i64::MIN..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(seconds / HOUR, "h", seconds / MINUTE % 60, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(seconds / DAY, "d", seconds / HOUR % 24, "h"),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two(seconds / YEAR, "y", seconds / DAY % 365, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// The time since a timestamp, `<unknown>` if it is absent.
pub(super) fn since(timestamp: &Value, now: Timestamp) -> String {
    match timestamp.as_str().and_then(meta::time::parse) {
        Some(then) => duration(seconds_between(then, now)),
        None => "<unknown>".to_owned(),
    }
}

/// Whole seconds from one time to another, rounded toward zero as Go does.
pub(super) fn seconds_between(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_secs()
}

/// The age of an object.
pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    since(object.at("metadata").at("creationTimestamp"), now).into()
}

/// The name of an object.
pub(super) fn name(object: &Value) -> Value {
    object.at("metadata").text("name").into()
}

/// A text, or what to show instead of an empty one.
pub(super) fn or<'a>(text: &'a str, instead: &'a str) -> &'a str {
    if text.is_empty() { instead } else { text }
}

/// The number in a field, or zero.
pub(super) fn number(object: &Value, field: &str) -> Value {
    object.int(field).unwrap_or_default().into()
}

/// Texts of a list of texts, joined.
pub(super) fn joined(items: &[Value], separator: &str) -> String {
    items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(separator)
}

/// A number or text without quotes.
pub(super) fn int_or_string(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "0".to_owned(),
        other => other.to_string(),
    }
}

/// Labels as `a=b,c=d`.
pub(super) fn labels(labels: &Map<String, Value>) -> String {
    if labels.is_empty() {
        return "<none>".to_owned();
    }
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.join(",")
}

/// A label selector object as text.
pub(super) fn selector(selector: &Value) -> String {
    match meta::Selector::from_label_selector(selector) {
        // One that selects nothing has no text either.
        Ok(parsed) => or(&parsed.to_string(), "<none>").to_owned(),
        Err(_) => "<error>".to_owned(),
    }
}

/// Names and images of a pod spec's containers.
pub(super) fn containers(spec: &Value) -> (Value, Value) {
    let of = |field: &str| {
        let texts: Vec<&str> =
            spec.items("containers").iter().map(|container| container.text(field)).collect();
        Value::from(texts.join(","))
    };
    (of("name"), of("image"))
}

/// The first `most` entries, and how many more there are.
pub(super) fn with_more(list: &[String], most: usize) -> String {
    if list.is_empty() {
        return "<unset>".to_owned();
    }
    let shown = list[..list.len().min(most)].join(",");
    if list.len() > most { format!("{shown} + {} more...", list.len() - most) } else { shown }
}

/// Whether a condition of that type is true.
pub(super) fn condition(status: &Value, kind: &str) -> bool {
    status
        .items("conditions")
        .iter()
        .any(|condition| condition.text("type") == kind && condition.text("status") == "True")
}
