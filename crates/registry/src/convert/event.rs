//! `events.k8s.io/v1 Event` and `v1 Event` are one object under two sets of names.

use serde_json::Value;

use super::rename;

/// Names in events.k8s.io and in the core group.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

pub(super) fn to_core(mut object: Value) -> Value {
    for (events, core) in NAMES {
        rename(&mut object, events, core);
    }
    object
}

pub(super) fn to_events(mut object: Value) -> Value {
    for (events, core) in NAMES {
        rename(&mut object, core, events);
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn there_and_back() {
        let event = json!({
            "metadata": {"name": "e"}, "regarding": {"kind": "Pod"}, "note": "n", "reason": "r",
            "reportingController": "c", "reportingInstance": "i", "deprecatedCount": 3,
        });
        let core = to_core(event.clone());
        assert_eq!(core["involvedObject"]["kind"], "Pod");
        assert_eq!(to_events(core), event);
    }
}
