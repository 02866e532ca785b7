//! EventRateLimit: how many events are taken, from everybody together, for a namespace, from a user, or about an
//! object.

use std::{collections::HashMap, time::Instant};

use meta::Status;
use parking_lot::Mutex;
use registry::{Admit, Attributes, Operation, Row};
use serde_json::Value;

use super::{Admitted, decided, each, fine, text};

/// How many keys a limit remembers unless it says otherwise.
const KEYS: usize = 4096;

/// The plugin.
pub(super) struct EventRateLimit {
    limits: Vec<Limit>,
}

impl EventRateLimit {
    /// With its `Configuration`.
    pub(super) fn configured(configuration: &Value) -> Result<Self, String> {
        let limits: Vec<Limit> =
            each(configuration, "limits").map(Limit::read).collect::<Result<_, _>>()?;
        if limits.is_empty() {
            return Err("limits: Invalid value: []: must not be empty".to_owned());
        }
        Ok(Self { limits })
    }
}

impl Admit for EventRateLimit {
    fn name(&self) -> &'static str {
        "EventRateLimit"
    }

    fn handles(&self, operation: Operation, row: &Row, _: Option<&str>) -> bool {
        matches!(operation, Operation::Create | Operation::Update) && row.kind.kind == "Event"
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> Admitted<'a> {
        let (Some(event), false) = (object, attributes.dry_run) else { return fine() };
        let now = Instant::now();
        // Every limit counts the event, whether or not another refuses it.
        let errors: Vec<String> =
            self.limits.iter().filter_map(|limit| limit.refuses(attributes, event, now)).collect();
        decided(match errors.as_slice() {
            [] => Ok(()),
            [only] => {
                Err(Status::new(429, "TooManyRequests", format!("Too many requests: {only}")))
            }
            several => {
                let message = format!("Too many requests: [{}]", several.join(", "));
                Err(Status::new(429, "TooManyRequests", message))
            }
        })
    }
}

/// What shares a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

const KINDS: [(&str, By); 4] = [
    ("Server", By::Server),
    ("Namespace", By::Namespace),
    ("User", By::User),
    ("SourceAndObject", By::SourceAndObject),
];

struct Limit {
    kind: &'static str,
    by: By,
    rate: f64,
    burst: f64,
    keys: usize,
    buckets: Mutex<Buckets>,
}

/// Buckets used lately, and those used before them: the latter are forgotten when the former are many.
#[derive(Default)]
struct Buckets {
    young: HashMap<String, Bucket>,
    old: HashMap<String, Bucket>,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Limit {
    fn read(value: &Value) -> Result<Self, String> {
        let (kind, by) = KINDS
            .into_iter()
            .find(|(kind, _)| *kind == text(value, "type"))
            .ok_or_else(|| format!("{:?} is no type of limit", text(value, "type")))?;
        let positive = |field: &str| {
            let number = value[field].as_u64().and_then(|n| u32::try_from(n).ok());
            let number = number.filter(|n| *n > 0).map(f64::from);
            number.ok_or_else(|| format!("{field} of a limit must be positive"))
        };
        let keys = value["cacheSize"].as_u64().and_then(|n| usize::try_from(n).ok());
        Ok(Self {
            kind,
            by,
            rate: positive("qps")?,
            burst: positive("burst")?,
            keys: keys.filter(|n| *n > 0).unwrap_or(KEYS),
            buckets: Mutex::default(),
        })
    }

    fn refuses(&self, attributes: &Attributes<'_>, event: &Value, now: Instant) -> Option<String> {
        let key = match self.by {
            By::Server => String::new(),
            By::Namespace => attributes.namespace.unwrap_or_default().to_owned(),
            By::User => attributes.user.name.clone(),
            By::SourceAndObject => about(event),
        };
        let kind = self.kind;
        (!self.take(&key, now)).then(|| format!("limit reached on type {kind} for key {key}"))
    }

    /// Takes a token, if there is one.
    fn take(&self, key: &str, now: Instant) -> bool {
        let buckets = &mut *self.buckets.lock();
        if !buckets.young.contains_key(key) {
            let new = Bucket { tokens: self.burst, at: now };
            let known = buckets.old.remove(key).unwrap_or(new);
            if buckets.young.len() >= self.keys {
                buckets.old = std::mem::take(&mut buckets.young);
            }
            buckets.young.insert(key.to_owned(), known);
        }
        let Some(bucket) = buckets.young.get_mut(key) else { return true };
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + since * self.rate).min(self.burst);
        bucket.at = now;
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        allowed
    }
}

/// Who says something, and about what.
fn about(event: &Value) -> String {
    let (source, object) = (&event["source"], &event["involvedObject"]);
    [
        text(source, "component"),
        text(source, "host"),
        text(object, "kind"),
        text(object, "namespace"),
        text(object, "name"),
        text(object, "uid"),
        text(object, "apiVersion"),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_bucket_refills_and_is_forgotten_only_when_long_unused() {
        let limit =
            Limit::read(&json!({"type": "Namespace", "qps": 2, "burst": 2, "cacheSize": 1}));
        let limit = limit.expect("valid");
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!([0, 0, 0].map(|ms| limit.take("a", at(ms))), [true, true, false]);
        assert!(!limit.take("a", at(250)) && limit.take("a", at(500)));
        assert!(limit.take("b", at(500)), "another key has its own");
        assert!(!limit.take("a", at(500)), "a key is remembered while it is used");
        assert!(Limit::read(&json!({"type": "Namespace", "qps": 0, "burst": 1})).is_err());
        assert!(Limit::read(&json!({"type": "World", "qps": 1, "burst": 1})).is_err());
    }

    #[test]
    fn a_configuration_is_needed() {
        assert!(EventRateLimit::configured(&Value::Null).is_err());
    }
}
