//! The engine itself: what it is made of, and the one way in.
//!
//! Owns the store handle and dispatch. Each verb's work is in a module of its own.

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use meta::{Revision, Status};
use parking_lot::Mutex;
use store::{ReadError, Snapshot, Store};
use tokio_util::sync::CancellationToken;

use crate::admission::{Admit, Measure};
use crate::allocate::{Allocator, Network, repair};
use crate::frames::Frames;
use crate::header::Header;
use crate::index::PodIndex;
use crate::object::Object;
use crate::outcome::{Answer, Outcome};
use crate::request::{Action, Request};
use crate::row::{Row, Rows};

/// A source of the current time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What the engine may be told.
pub struct Options {
    /// Admission plugins, in the order in which they are asked.
    pub admission: Vec<Arc<dyn Admit>>,
    /// Who is told how long they take.
    pub measure: Option<Arc<dyn Measure>>,
    /// Where cluster IPs and node ports come from.
    pub network: Network,
    /// The time that goes into objects.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            admission: Vec::new(),
            measure: None,
            network: Network::default(),
            clock: Arc::new(Timestamp::now),
        }
    }
}

/// The resource engine. Share it as `Arc<Registry>`.
pub struct Registry {
    pub(crate) store: Arc<dyn Store<Header>>,
    pub(crate) rows: Arc<Rows>,
    pub(crate) admission: Vec<Arc<dyn Admit>>,
    pub(crate) measure: Option<Arc<dyn Measure>>,
    pub(crate) clock: Clock,
    pub(crate) allocator: Allocator,
    pub(crate) frames: Frames,
    pub(crate) pods: PodIndex,
    /// Where `spec.nodeName` is among the selectable fields of pods.
    pub(crate) node_field: usize,
    /// The size of the collection that was counted last, and at which revision.
    counted: Mutex<Option<(String, Revision, u64)>>,
}

impl Registry {
    /// An engine over `store`, whose headers must come from [`crate::header_reader`] of the same
    /// `rows`.
    pub fn new(store: Arc<dyn Store<Header>>, rows: Arc<Rows>, options: Options) -> Arc<Self> {
        let node_field = rows.by_resource("", "pods").and_then(|row| row.by_node);
        Arc::new(Self {
            node_field: node_field.unwrap_or(usize::MAX),
            counted: Mutex::default(),
            pods: PodIndex::default(),
            frames: Frames::default(),
            allocator: Allocator::new(options.network),
            store,
            rows,
            admission: options.admission,
            measure: options.measure,
            clock: options.clock,
        })
    }

    /// The rows that are served.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Carries out one request. Dropping the future may leave a write that was already handed to
    /// the store to take place.
    ///
    /// # Errors
    /// The `Status` to answer with.
    pub fn execute(self: &Arc<Self>, request: Request) -> BoxFuture<'static, Answer> {
        let engine = self.clone();
        Box::pin(async move { engine.dispatch(request).await })
    }

    async fn dispatch(self: &Arc<Self>, request: Request) -> Answer {
        if request.subresource.is_some() {
            return Box::pin(crate::actions::execute(self, &request)).await;
        }
        let verb = request.action.verb();
        if !request.row.verbs.contains(&verb) {
            return Err(Status::method_not_supported(&request.row.group_resource(), verb.as_str()));
        }
        if request.row.storage.is_none() {
            return Box::pin(crate::actions::execute_unstored(self, &request)).await;
        }
        match &request.action {
            Action::Get => crate::read::get(self, &request).await,
            Action::List => crate::read::list(self, &request).await.map(Outcome::List),
            Action::Watch => crate::watch::watch(self, &request).await,
            // Writes keep much while they wait; boxed, they do not make reads as large.
            Action::Create(body) => Box::pin(crate::pipeline::create(self, &request, body)).await,
            Action::Update(body) => Box::pin(crate::pipeline::update(self, &request, body)).await,
            Action::Patch(patch, body) => {
                Box::pin(crate::pipeline::patch(self, &request, *patch, body)).await
            }
            Action::Delete(body) => Box::pin(crate::delete::delete(self, &request, body)).await,
            Action::DeleteCollection(body) => {
                Box::pin(crate::delete::delete_collection(self, &request, body)).await
            }
        }
    }

    /// Reads one object as this process knows it now, without authorization or waiting: for
    /// admission plugins and authorizers.
    pub fn get(&self, row: &Row, namespace: Option<&str>, name: &str) -> Option<Object> {
        let key = row.key(namespace, name)?;
        let snapshot = self.store.snapshot();
        let record = snapshot.get(&key)?.clone();
        Some(Object::new(row, key, record))
    }

    /// Reads a collection likewise; `None` is all namespaces.
    pub fn list(&self, row: &Row, namespace: Option<&str>) -> Vec<Object> {
        let snapshot = self.store.snapshot();
        let prefix = row.prefix(namespace);
        snapshot
            .range(&prefix)
            .map(|(key, record)| Object::new(row, key.clone(), record.clone()))
            .collect()
    }

    /// Keeps the index of pods by node, removes expired objects and repairs allocations until
    /// shutdown.
    pub async fn run(&self, shutdown: CancellationToken) {
        tokio::join!(
            self.pods.run(self, &shutdown),
            crate::expire::run(self, &shutdown),
            repair::run(self, &shutdown)
        );
    }

    /// Makes the records of taken addresses and ports agree with the Services in the store. To be
    /// called once before the first write; [`Self::run`] does it again now and then.
    pub async fn repair_allocations(&self) {
        repair::repair(self).await;
    }

    /// How large each stored resource is, by the row in whose version it is stored. Looks at every object.
    pub fn sizes(&self) -> Vec<(Arc<Row>, Size)> {
        let snapshot = self.store.snapshot();
        let stored = self.rows.iter().filter(|row| row.storage.is_some() && row.served_as_stored());
        let size = |row: &Arc<Row>| {
            let prefix = row.prefix(None);
            let add = |size: Size, value: &[u8]| Size {
                objects: size.objects + 1,
                bytes: size.bytes + value.len() as u64,
            };
            let size = snapshot
                .range(&prefix)
                .fold(Size::default(), |size, (_, record)| add(size, &record.value));
            (row.clone(), size)
        };
        stored.map(size).collect()
    }

    /// How many keys of a snapshot start with `prefix`.
    pub(crate) fn count(&self, snapshot: &Snapshot<Header>, prefix: &str) -> u64 {
        let revision = snapshot.revision();
        if let Some((counted, at, count)) = &*self.counted.lock()
            && *at == revision
            && counted == prefix
        {
            return *count;
        }
        let count = snapshot.range(prefix).count() as u64;
        *self.counted.lock() = Some((prefix.to_owned(), revision, count));
        count
    }

    /// The store's snapshot, at least as new as every acknowledged write.
    pub(crate) async fn latest(&self) -> Result<Snapshot<Header>, Status> {
        self.store.latest().await.map_err(read_error)
    }

    /// The pods bound to a node, likewise.
    pub fn pods_on(&self, node: &str) -> Vec<Object> {
        let Some(row) = self.rows.by_resource("", "pods") else { return Vec::new() };
        // The index is read first: the snapshot must not be older.
        let index = self.pods.read();
        let snapshot = self.store.snapshot();
        let candidates = self.pods.candidates(self, &index, &snapshot, node);
        candidates
            .into_iter()
            .filter(|(_, record)| record.note.field(self.node_field) == node)
            .map(|(key, record)| Object::new(row, key, record))
            .collect()
    }

    /// The store underneath: for health checks and metrics.
    pub fn store(&self) -> &Arc<dyn Store<Header>> {
        &self.store
    }
}

/// How large a collection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Objects in it.
    pub objects: u64,
    /// Bytes of all of them as stored.
    pub bytes: u64,
}

/// A failed read, as the client sees it.
pub(crate) fn read_error(error: ReadError) -> Status {
    match error {
        ReadError::Compacted { .. } => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        ReadError::Future { revision, current } => {
            Status::too_large_resource_version(revision.0, current.0)
        }
        ReadError::Unavailable(_) | ReadError::Closed => {
            Status::service_unavailable(error.to_string())
        }
    }
}
