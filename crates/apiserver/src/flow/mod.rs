//! Who may work now, who waits, who is refused: priority and fairness (KEP-1040).
//!
//! A request is matched to a FlowSchema, which leads to a priority level; levels have seats, and requests that find
//! none wait in fair queues or get 429. Streams hold seats only while they begin. Components within the process are
//! not asked: they bound themselves. Refuses to know what a request does and where the objects come from.

mod counts;
mod debug;
mod level;
mod limits;
mod queues;
mod retry;
mod schema;
mod stored;
mod text;
mod watchers;
mod work;

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use parking_lot::Mutex;
use registry::{Row, Size, UserInfo};
use serde_json::Value;
use tokio::sync::Notify;

use self::{
    counts::Counts,
    debug::About,
    level::{Kind, Level, Seats},
    limits::{Demand, Limits, Party, Shares, Smoothed},
    retry::Retry,
    schema::FlowSchema,
    stored::Stored,
};
use crate::{authz::Attributes, request::Query};

pub(crate) use self::{
    level::Place,
    watchers::{Watchers, Watching},
};

/// How often seats are moved between levels.
pub(crate) const BORROWING: Duration = Duration::from_secs(10);
/// The longest a request waits for seats, whatever its time limit.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The bounds; their sum is the number of seats.
#[derive(Clone, Copy, Debug)]
pub struct FlowOptions {
    /// Reads at once (`--max-requests-inflight`).
    pub max_reads: usize,
    /// Writes at once (`--max-mutating-requests-inflight`).
    pub max_writes: usize,
    /// Whether levels share them (`--enable-priority-and-fairness`), or each kind has its own for all.
    pub fair: bool,
}

impl Default for FlowOptions {
    fn default() -> Self {
        Self { max_reads: 400, max_writes: 200, fair: true }
    }
}

/// Flow control.
pub(crate) struct Flow {
    seats: u32,
    /// The objects without which no request would have a place.
    mandatory: Vec<Value>,
    config: ArcSwap<Config>,
    /// How large collections were a while ago.
    sizes: ArcSwap<Vec<(Arc<Row>, Size)>>,
    /// Watches that are open.
    pub(crate) watchers: Arc<Watchers>,
    started: Instant,
    loaded: Notify,
}

/// The objects in force.
#[derive(Default)]
struct Config {
    /// In the order in which they are tried.
    schemas: Vec<Arc<Schema>>,
    lanes: Vec<Arc<Lane>>,
}

/// A FlowSchema in force.
pub(crate) struct Schema {
    stored: FlowSchema,
    lane: Arc<Lane>,
    counts: Arc<Counts>,
    /// The uids of schema and level, as answers carry them.
    pub(crate) uids: [HeaderValue; 2],
}

/// A priority level with what is known about it.
struct Lane {
    name: String,
    uid: String,
    limits: Limits,
    level: Arc<Level>,
    /// Past and smoothed demand.
    demand: Arc<Mutex<(Demand, Smoothed)>>,
    retry: Arc<Mutex<Retry>>,
}

/// Something about a schema at a level, for metrics.
struct Named<'a, T> {
    schema: &'a str,
    level: &'a str,
    what: T,
}

impl<T> Named<'_, T> {
    fn labels(&self) -> String {
        format!("flow_schema=\"{}\",priority_level=\"{}\"", self.schema, self.level)
    }
}

impl Flow {
    /// Flow control that knows only the mandatory objects.
    pub(crate) fn new(options: FlowOptions, mandatory: Vec<Value>) -> Self {
        let seats = options.max_reads.saturating_add(options.max_writes);
        let flow = Self {
            seats: u32::try_from(seats).unwrap_or(u32::MAX),
            mandatory,
            config: ArcSwap::default(),
            sizes: ArcSwap::default(),
            watchers: Arc::default(),
            started: Instant::now(),
            loaded: Notify::new(),
        };
        flow.load(Vec::new());
        flow
    }

    /// Puts objects into force: schemas and levels mixed. What works on goes on with what it has.
    pub(crate) fn load(&self, mut objects: Vec<Value>) {
        let before = self.config.load_full();
        let (mut levels, mut schemas) = (Vec::new(), Vec::new());
        let same = |one: &Value, other: &Value| {
            one["metadata"]["name"] == other["metadata"]["name"]
                && leads(one).is_some() == leads(other).is_some()
        };
        for mandatory in &self.mandatory {
            if !objects.iter().any(|object| same(object, mandatory)) {
                objects.push(mandatory.clone());
            }
        }
        for object in objects {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let read = if leads(&object).is_some() {
                serde_json::from_value(object).map(|schema| schemas.push(schema))
            } else {
                serde_json::from_value(object).map(|level| levels.push(level))
            };
            if let Err(error) = read {
                tracing::warn!(name, %error, "an object of flow control cannot be read");
            }
        }
        let lanes = lanes(self.seats, &levels, &before.lanes);
        let config = Config { schemas: order(schemas, &lanes, &before.schemas), lanes };
        self.config.store(Arc::new(config));
        self.adjust();
        self.loaded.notify_one();
    }

    /// Comes back when objects were put into force since the last time.
    pub(crate) async fn changed(&self) {
        self.loaded.notified().await;
    }

    /// Moves seats between levels by what was wanted of them during the last [`BORROWING`].
    pub(crate) fn borrow(&self) {
        for lane in &self.config.load().lanes {
            let demand = lane.level.demand(BORROWING);
            let mut known = lane.demand.lock();
            known.0 = demand;
            known.1.update(demand);
        }
        self.adjust();
    }

    fn adjust(&self) {
        let config = self.config.load();
        let party = |lane: &Arc<Lane>| {
            let (Demand { peak, .. }, Smoothed(smoothed)) = *lane.demand.lock();
            Party { exempt: lane.level.kind() == Kind::Exempt, limits: lane.limits, peak, smoothed }
        };
        let parties: Vec<Party> = config.lanes.iter().map(party).collect();
        for (lane, seats) in config.lanes.iter().zip(limits::borrow(&parties)) {
            lane.level.set_limit(seats);
        }
    }

    /// Says how large collections are.
    pub(crate) fn set_sizes(&self, sizes: Vec<(Arc<Row>, Size)>) {
        self.sizes.store(Arc::new(sizes));
    }

    /// How large collections are.
    pub(crate) fn sizes(&self) -> Arc<Vec<(Arc<Row>, Size)>> {
        self.sizes.load_full()
    }

    /// The schema of a request.
    pub(crate) fn classify(
        &self,
        user: &UserInfo,
        request: &Attributes<'_>,
    ) -> Option<Arc<Schema>> {
        let config = self.config.load();
        let matching = config.schemas.iter().find(|schema| schema.stored.matches(user, request));
        // The last one takes what nobody else does.
        matching.or(config.schemas.last()).cloned()
    }

    /// Seats for a request of `schema`, at once or after waiting; `limit` is the request's time limit.
    ///
    /// # Errors
    /// The seconds after which the client should come back.
    pub(crate) async fn enter(
        &self,
        schema: &Arc<Schema>,
        user: &UserInfo,
        request: &Attributes<'_>,
        (query, row): (&Query, Option<&Arc<Row>>),
        limit: Duration,
    ) -> Result<Place, u64> {
        let lane = &schema.lane;
        let seats = match request.verb {
            "list" | "watch" => {
                let sizes = self.sizes.load();
                let size = row.and_then(|row| size_of(&sizes, row));
                let wanted = work::seats(request.verb, !request.name.is_empty(), query, size);
                Seats::during(wanted.min(lane.widest()))
            }
            "create" | "update" | "patch" | "delete" | "deletecollection"
                if request.subresource != "token" && lane.level.kind() != Kind::Exempt =>
            {
                let seen = |row| self.watchers.interested(row, request.namespace, request.name);
                work::write(row.map_or(0, |row| seen(row)), lane.widest())
            }
            _ => Seats::during(1),
        };
        if let Some(place) = level::try_enter(&lane.level, &schema.counts, seats) {
            return Ok(place);
        }
        let mut hasher = DefaultHasher::new();
        let (name, flow) =
            (&schema.stored.metadata.name, schema.stored.distinguisher(user, request));
        (name, flow).hash(&mut hasher);
        let limit = (limit / 4).min(LONGEST_WAIT);
        let about = About::new(name, flow, user, request);
        let flow = (hasher.finish(), about);
        let wait = level::wait(&lane.level, &schema.counts, flow, seats, limit);
        // Boxed: it is rare, and would make every request larger.
        Box::pin(wait).await.map_err(|reason| {
            schema.counts.reject(reason);
            tracing::debug!(level = lane.name, ?reason, user = user.name, "too many requests");
            lane.retry.lock().refuse(self.started.elapsed().as_secs())
        })
    }

    /// All metrics as text.
    pub(crate) fn write(&self, out: &mut String) {
        let config = self.config.load();
        let schemas: Vec<Named<'_, &Counts>> = config
            .schemas
            .iter()
            .map(|schema| Named {
                schema: &schema.stored.metadata.name,
                level: &schema.lane.name,
                what: &*schema.counts,
            })
            .collect();
        counts::write(out, &schemas);
        text::levels(out, &config.lanes);
    }
}

impl Lane {
    /// The most seats one request may have.
    fn widest(&self) -> u32 {
        match self.level.kind() {
            Kind::Queue(shape) => limits::widest(self.limits.nominal, shape.hand),
            Kind::Exempt | Kind::Reject => u32::MAX,
        }
    }
}

fn size_of(sizes: &[(Arc<Row>, Size)], row: &Row) -> Option<Size> {
    // All versions of a resource share where it is stored.
    let place = row.storage.as_ref()?;
    let same = |known: &Row| known.storage.as_ref().is_some_and(|known| Arc::ptr_eq(known, place));
    sizes.iter().find(|(known, _)| same(known)).map(|(_, size)| *size)
}

/// The level that a schema leads to; none for objects that are levels.
pub(crate) fn leads(object: &Value) -> Option<&str> {
    object["spec"]["priorityLevelConfiguration"]["name"].as_str()
}

/// Levels of the objects, each with what it had before.
fn lanes(seats: u32, stored: &[Stored], before: &[Arc<Lane>]) -> Vec<Arc<Lane>> {
    let read: Vec<(&Stored, Kind, Shares)> = stored
        .iter()
        .filter_map(|one| one.read().map(|(kind, shares)| (one, kind, shares)))
        .collect();
    let shares: Vec<Shares> = read.iter().map(|(.., shares)| shares.clone()).collect();
    let limits = limits::limits(seats, &shares);
    let lane = |((stored, kind, _), limits): ((&Stored, Kind, Shares), Limits)| {
        let known = before.iter().find(|lane| lane.name == stored.metadata.name);
        // One that waits otherwise is another one; the old one runs empty by itself.
        let level = known.map(|lane| &lane.level).filter(|level| level.kind() == kind).cloned();
        let begin = limits.nominal - (limits.nominal - limits.lower) / 2;
        Arc::new(Lane {
            name: stored.metadata.name.clone(),
            uid: stored.metadata.uid.clone(),
            limits,
            level: level.unwrap_or_else(|| Arc::new(Level::new(kind, begin))),
            demand: known.map(|lane| lane.demand.clone()).unwrap_or_default(),
            retry: known.map(|lane| lane.retry.clone()).unwrap_or_default(),
        })
    };
    read.into_iter().zip(limits).map(lane).collect()
}

/// Schemas in the order in which they are tried; those that lead nowhere are left out.
fn order(
    mut stored: Vec<FlowSchema>,
    lanes: &[Arc<Lane>],
    before: &[Arc<Schema>],
) -> Vec<Arc<Schema>> {
    stored.sort_by(|left, right| {
        let key = |schema: &FlowSchema| schema.spec.matching_precedence;
        key(left).cmp(&key(right)).then_with(|| left.metadata.name.cmp(&right.metadata.name))
    });
    let known: HashMap<(&str, &str), &Arc<Counts>> = before
        .iter()
        .map(|schema| {
            ((schema.stored.metadata.name.as_str(), schema.lane.name.as_str()), &schema.counts)
        })
        .collect();
    let schema = |stored: FlowSchema| {
        let level = &stored.spec.priority_level_configuration.name;
        let lane = lanes.iter().find(|lane| lane.name == *level)?.clone();
        let counts = known.get(&(stored.metadata.name.as_str(), level.as_str()));
        let counts = counts.map(|counts| Arc::clone(counts)).unwrap_or_default();
        let uids = [&stored.metadata.uid, &lane.uid]
            .map(|uid| HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static("")));
        Some(Arc::new(Schema { stored, lane, counts, uids }))
    };
    stored.into_iter().filter_map(schema).collect()
}

#[cfg(test)]
mod tests;
