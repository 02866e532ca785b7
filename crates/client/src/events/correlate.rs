//! Which events are written anew, counted on an earlier one, combined, or dropped.
//!
//! The thresholds are those of client-go's recorder, so that `kubectl describe` shows what users
//! expect: similar events combine from the 10th distinct message within ten minutes on, and one
//! source may write 25 events about an object at once and one every five minutes after that.
//! Pure: time is given, nothing is sent.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, ObjectReference},
    apimachinery::pkg::apis::meta::v1::Time,
};

/// Entries remembered in each table.
const REMEMBERED: usize = 4096;
/// Distinct messages of one kind of event before they are combined.
const COMBINE_FROM: usize = 10;
/// Quiet time after which a kind of event counts as new.
const COMBINE_WITHIN: Duration = Duration::from_secs(600);
/// Events one source may write about one object at once.
const BURST: f64 = 25.0;
/// Further events it may write each second.
const REFILL: f64 = 1.0 / 300.0;
/// Put before the message of combined events.
const COMBINED: &str = "(combined from similar events): ";

/// What to do about an event.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// Create it.
    Create(Box<Event>),
    /// Set count, last time and message of the event written earlier under that name; create it
    /// if that one is gone.
    Count(Box<Event>),
    /// The source says too much about this object.
    Drop,
}

/// The object an event is about, its source being fixed.
#[derive(Clone, PartialEq, Eq, Hash)]
struct About {
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
    uid: String,
}

impl About {
    fn of(reference: &ObjectReference) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Self {
            api_version: text(&reference.api_version),
            kind: text(&reference.kind),
            namespace: text(&reference.namespace),
            name: text(&reference.name),
            uid: text(&reference.uid),
        }
    }
}

/// Events alike but for their message.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Sort {
    about: About,
    kind: String,
    reason: String,
    field_path: String,
}

/// Events counted together; no message for combined ones.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Same {
    sort: Sort,
    message: Option<String>,
}

struct Bucket {
    tokens: f64,
    at: Timestamp,
}

struct Messages {
    distinct: HashSet<String>,
    at: Timestamp,
}

struct Written {
    name: String,
    first: Timestamp,
    count: i32,
    at: Timestamp,
}

/// Memory of what one source has said.
#[derive(Default)]
pub(super) struct Correlator {
    buckets: HashMap<About, Bucket>,
    sorts: HashMap<Sort, Messages>,
    written: HashMap<Same, Written>,
}

impl Correlator {
    /// Decides about `event`, which is named and stamped as if it were new.
    pub(super) fn judge(&mut self, mut event: Event, now: Timestamp) -> Verdict {
        let about = About::of(&event.involved_object);
        let sort = Sort {
            about: about.clone(),
            kind: event.type_.clone().unwrap_or_default(),
            reason: event.reason.clone().unwrap_or_default(),
            field_path: event.involved_object.field_path.clone().unwrap_or_default(),
        };
        let message = event.message.clone().unwrap_or_default();
        let combined = self.combine(&sort, &message, now);
        if combined {
            event.message = Some(format!("{COMBINED}{message}"));
        }
        let same = Same { sort, message: (!combined).then_some(message) };
        let repeated = self.count(same, &mut event, now);
        if !self.may_speak(about, now) {
            return Verdict::Drop;
        }
        if repeated { Verdict::Count(Box::new(event)) } else { Verdict::Create(Box::new(event)) }
    }

    fn combine(&mut self, sort: &Sort, message: &str, now: Timestamp) -> bool {
        make_room(&mut self.sorts, |messages| messages.at);
        let messages = self
            .sorts
            .entry(sort.clone())
            .or_insert_with(|| Messages { distinct: HashSet::new(), at: now });
        if since(messages.at, now) > COMBINE_WITHIN {
            messages.distinct.clear();
        }
        messages.at = now;
        if messages.distinct.contains(message) {
            return false;
        }
        if messages.distinct.len() + 1 >= COMBINE_FROM {
            return true;
        }
        messages.distinct.insert(message.to_owned());
        false
    }

    fn count(&mut self, same: Same, event: &mut Event, now: Timestamp) -> bool {
        make_room(&mut self.written, |written| written.at);
        let written = self.written.entry(same).or_insert_with(|| Written {
            name: event.metadata.name.clone().unwrap_or_default(),
            first: now,
            count: 0,
            at: now,
        });
        written.count = written.count.saturating_add(1);
        written.at = now;
        event.metadata.name = Some(written.name.clone());
        event.first_timestamp = Some(Time(written.first));
        event.count = Some(written.count);
        written.count > 1
    }

    fn may_speak(&mut self, about: About, now: Timestamp) -> bool {
        make_room(&mut self.buckets, |bucket| bucket.at);
        let bucket = self.buckets.entry(about).or_insert(Bucket { tokens: BURST, at: now });
        let refilled = bucket.tokens + since(bucket.at, now).as_secs_f64() * REFILL;
        bucket.tokens = refilled.min(BURST);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

/// Forgets the older half of a full table.
fn make_room<K: Clone + Eq + Hash, V>(table: &mut HashMap<K, V>, at: impl Fn(&V) -> Timestamp) {
    if table.len() < REMEMBERED {
        return;
    }
    let mut times: Vec<_> = table.values().map(&at).collect();
    times.sort_unstable();
    let middle = times[times.len() / 2];
    table.retain(|_, value| at(value) > middle);
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn event(serial: usize, message: &str) -> Event {
        Event {
            metadata: ObjectMeta { name: Some(format!("web.{serial}")), ..ObjectMeta::default() },
            involved_object: ObjectReference {
                kind: Some("Pod".into()),
                name: Some("web".into()),
                ..ObjectReference::default()
            },
            type_: Some("Warning".into()),
            reason: Some("BackOff".into()),
            message: Some(message.into()),
            ..Event::default()
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("in range")
    }

    #[test]
    fn a_repeated_event_is_counted_on_the_first_one() {
        let mut correlator = Correlator::default();
        assert!(matches!(correlator.judge(event(1, "no"), at(0)), Verdict::Create(_)));
        let Verdict::Count(second) = correlator.judge(event(2, "no"), at(5)) else {
            panic!("not counted");
        };
        assert_eq!(second.metadata.name.as_deref(), Some("web.1"));
        assert_eq!((second.count, second.first_timestamp), (Some(2), Some(Time(at(0)))));
    }

    #[test]
    fn the_tenth_distinct_message_is_combined() {
        let mut correlator = Correlator::default();
        for serial in 1..10 {
            let verdict = correlator.judge(event(serial, &format!("no {serial}")), at(0));
            assert!(matches!(verdict, Verdict::Create(_)), "{serial}");
        }
        let Verdict::Create(tenth) = correlator.judge(event(10, "no 10"), at(0)) else {
            panic!("not created");
        };
        assert_eq!(tenth.message.as_deref(), Some("(combined from similar events): no 10"));
        assert!(matches!(correlator.judge(event(11, "no 11"), at(0)), Verdict::Count(_)));
        let later = correlator.judge(event(12, "no 12"), at(1000));
        let Verdict::Create(later) = later else { panic!("still combined: {later:?}") };
        assert_eq!(later.message.as_deref(), Some("no 12"));
    }

    #[test]
    fn one_object_may_be_spoken_of_25_times_then_every_five_minutes() {
        let mut correlator = Correlator::default();
        for serial in 0..25 {
            assert_ne!(correlator.judge(event(serial, "no"), at(0)), Verdict::Drop);
        }
        assert_eq!(correlator.judge(event(25, "no"), at(1)), Verdict::Drop);
        assert_ne!(correlator.judge(event(26, "no"), at(302)), Verdict::Drop);
        assert_eq!(correlator.judge(event(27, "no"), at(302)), Verdict::Drop);
    }

    #[test]
    fn memory_is_bounded() {
        let mut correlator = Correlator::default();
        for serial in 0..3 * REMEMBERED {
            let mut event = event(serial, "no");
            event.involved_object.name = Some(format!("web-{serial}"));
            correlator.judge(event, at(i64::try_from(serial).expect("small")));
        }
        assert!(correlator.written.len() <= REMEMBERED);
        assert!(correlator.sorts.len() <= REMEMBERED);
        assert!(correlator.buckets.len() <= REMEMBERED);
    }
}
