//! Answers from outside, remembered for a short while.
//!
//! Bounded in number and in age. Pure but for the lock; time is handed in.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{RData, Record, RecordType},
};

/// The longest time an answer is remembered.
const LONGEST: Duration = Duration::from_secs(30);
/// The most answers remembered.
const ENTRIES: usize = 2048;

/// Name in lower case, and type.
type Key = (String, RecordType);

/// When it came, how long it holds, and the answer.
type Entry = (Instant, Duration, Arc<Message>);

/// The remembered answers.
#[derive(Default)]
pub(crate) struct Cache {
    entries: Mutex<HashMap<Key, Entry>>,
}

impl Cache {
    /// The answer to `query`, its times to live reduced by its age.
    pub(crate) fn get(&self, query: &Query, now: Instant) -> Option<Message> {
        let (stored, message) = {
            let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            let (stored, lifetime, message) = entries.get(&key(query))?;
            if now.duration_since(*stored) >= *lifetime {
                return None;
            }
            (*stored, message.clone())
        };
        let age = u32::try_from(now.duration_since(stored).as_secs()).unwrap_or(u32::MAX);
        let mut message = Message::clone(&message);
        let Message { answers, authorities, additionals, .. } = &mut message;
        for record in answers.iter_mut().chain(authorities).chain(additionals) {
            record.decrement_ttl(age);
        }
        Some(message)
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Remembers an answer if it may be remembered at all.
    pub(crate) fn put(&self, query: &Query, message: Message, now: Instant) {
        let Some(lifetime) = lifetime(&message) else { return };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= ENTRIES {
            entries.retain(|_, (stored, lifetime, _)| now.duration_since(*stored) < *lifetime);
        }
        if entries.len() >= ENTRIES {
            // Someone asks for very many names; starting over is cheaper than ranking them.
            entries.clear();
        }
        entries.insert(key(query), (now, lifetime, Arc::new(message)));
    }
}

fn key(query: &Query) -> Key {
    (query.name().to_ascii().to_ascii_lowercase(), query.query_type())
}

/// How long an answer holds: the shortest of its times to live; what is absent, as long as the
/// zone says (RFC 2308). `None` for what must not be remembered.
fn lifetime(message: &Message) -> Option<Duration> {
    let code = message.metadata.response_code;
    let lasting = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
    if !lasting || message.metadata.truncation {
        return None;
    }
    let negative = |record: &Record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    };
    let seconds = if message.answers.is_empty() {
        message.authorities.iter().find_map(negative)?
    } else {
        message.answers.iter().map(|record| record.ttl).min()?
    };
    (seconds > 0).then(|| Duration::from_secs(seconds.into()).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::{
        op::OpCode,
        rr::{Name, rdata::A},
    };

    use super::*;

    fn query() -> Query {
        Query::query(Name::from_ascii("Example.com.").expect("name"), RecordType::A)
    }

    fn message(ttl: u32) -> Message {
        let mut message = Message::response(1, OpCode::Query);
        let data = RData::A(A(Ipv4Addr::new(192, 0, 2, 1)));
        message.add_answer(Record::from_rdata(query().name().clone(), ttl, data));
        message
    }

    #[test]
    fn answers_age_and_expire() {
        let (cache, now) = (Cache::default(), Instant::now());
        cache.put(&query(), message(10), now);
        let later = cache.get(&query(), now + Duration::from_secs(4)).expect("remembered");
        assert_eq!(later.answers[0].ttl, 6);
        assert!(cache.get(&query(), now + Duration::from_secs(10)).is_none());
        cache.put(&query(), message(3600), now);
        assert!(cache.get(&query(), now + Duration::from_secs(31)).is_none(), "at most 30 s");
    }

    #[test]
    fn failures_and_nothing_in_particular_are_not_remembered() {
        let (cache, now) = (Cache::default(), Instant::now());
        cache.put(&query(), message(0), now);
        assert!(cache.get(&query(), now).is_none());
        let mut failed = message(10);
        failed.metadata.response_code = ResponseCode::ServFail;
        cache.put(&query(), failed, now);
        assert!(cache.get(&query(), now).is_none());
        cache.put(&query(), Message::response(1, OpCode::Query), now);
        assert!(cache.get(&query(), now).is_none(), "no data and no SOA");
    }
}
