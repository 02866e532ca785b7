//! Conditions of a status, by type: setting one moves its transition time only when its
//! status changes. Works on JSON; knows nothing of what a condition means.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::time;

/// What a condition shall say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition<'a> {
    /// Type, the key of the list.
    pub kind: &'a str,
    /// `True`, `False` or `Unknown`.
    pub status: &'a str,
    /// CamelCase reason; may be empty.
    pub reason: &'a str,
    /// Text for people; may be empty.
    pub message: &'a str,
}

/// The condition of type `kind`.
#[must_use]
pub fn find<'a>(conditions: &'a [Value], kind: &str) -> Option<&'a Value> {
    conditions.iter().find(|one| one.get("type").and_then(Value::as_str) == Some(kind))
}

/// Whether the condition of type `kind` is there and has `status`.
#[must_use]
pub fn is(conditions: &[Value], kind: &str, status: &str) -> bool {
    find(conditions, kind).and_then(|one| one.get("status")).and_then(Value::as_str) == Some(status)
}

/// Sets one condition, keeping its place and any other field it has (such as
/// `lastHeartbeatTime`). `lastTransitionTime` becomes `now` if the status differs or the
/// condition is new. Returns whether anything changed.
pub fn set(conditions: &mut Vec<Value>, wanted: &Condition<'_>, now: Timestamp) -> bool {
    let found = conditions
        .iter_mut()
        .filter_map(Value::as_object_mut)
        .find(|one| one.get("type").and_then(Value::as_str) == Some(wanted.kind));
    let Some(existing) = found else {
        let mut fresh = Map::new();
        fresh.insert("type".into(), wanted.kind.into());
        fresh.insert("status".into(), wanted.status.into());
        fresh.insert("lastTransitionTime".into(), time::seconds(now).into());
        put_text(&mut fresh, "reason", wanted.reason);
        put_text(&mut fresh, "message", wanted.message);
        conditions.push(Value::Object(fresh));
        return true;
    };
    let mut changed = false;
    if existing.get("status").and_then(Value::as_str) != Some(wanted.status) {
        existing.insert("status".into(), wanted.status.into());
        existing.insert("lastTransitionTime".into(), time::seconds(now).into());
        changed = true;
    }
    changed |= put_text(existing, "reason", wanted.reason);
    changed |= put_text(existing, "message", wanted.message);
    changed
}

/// Removes the condition of type `kind`; whether it was there.
pub fn remove(conditions: &mut Vec<Value>, kind: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|one| one.get("type").and_then(Value::as_str) != Some(kind));
    conditions.len() != before
}

fn put_text(map: &mut Map<String, Value>, field: &str, text: &str) -> bool {
    if map.get(field).and_then(Value::as_str).unwrap_or_default() == text {
        return false;
    }
    if text.is_empty() {
        map.remove(field);
    } else {
        map.insert(field.into(), text.into());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_only_with_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let ready = Condition { kind: "Ready", status: "True", reason: "Ok", message: "" };
        let mut list = Vec::new();
        assert!(set(&mut list, &ready, at(0)));
        assert!(!set(&mut list, &ready, at(10)));
        assert!(set(&mut list, &Condition { message: "fine", ..ready }, at(20)));
        assert_eq!(find(&list, "Ready").unwrap()["lastTransitionTime"], "1970-01-01T00:00:00Z");
        assert!(set(&mut list, &Condition { status: "False", ..ready }, at(30)));
        assert_eq!(find(&list, "Ready").unwrap()["lastTransitionTime"], "1970-01-01T00:00:30Z");
        assert!(is(&list, "Ready", "False"));
        assert!(remove(&mut list, "Ready") && list.is_empty());
    }
}
