//! Following a collection: list it in pages, watch from there, resume, and list again when the
//! server no longer has the history.
//!
//! Produces steps; keeps no objects and knows nothing of caches.

use std::time::{Duration, Instant};

use kube::api::{ListParams, ObjectList, Request, WatchParams};
use meta::Revision;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    ErrorExt, Object, Select,
    backoff::Backoff,
    watch::{Event, Lines},
};

/// Objects asked for in one page of a list.
const PAGE: u32 = 500;
/// How long beyond its requested end a watch may stay silent before it is given up.
const GRACE: Duration = Duration::from_secs(10);
/// First and longest pause between failed attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// What happened to a followed collection. Revisions only grow, except across a `Replace` that
/// follows a restore of the server's store.
#[derive(Debug)]
pub enum Step<K> {
    /// The whole collection as of a revision.
    Replace(Vec<K>, Revision),
    /// An object was added or changed.
    Apply(K, Revision),
    /// An object is gone; its last state.
    Delete(K, Revision),
    /// Nothing changed up to this revision.
    Progress(Revision),
}

/// How one watch request ended.
enum Ended {
    /// The server closed it as asked; resume.
    Closed,
    /// The history is gone; list again.
    Expired,
    /// Something failed; resume after a pause.
    Failed(kube::Error),
    /// The server went silent; resume after a pause.
    Silent,
}

/// Follows the objects of `select`, handing every step to `sink` until `shutdown`.
///
/// Failures are logged and retried with growing, jittered delays: this future ends only by
/// `shutdown`. Managed fields are dropped from every object.
pub async fn follow<K: Object>(
    client: kube::Client,
    kind: K::DynamicType,
    select: Select,
    shutdown: CancellationToken,
    mut sink: impl FnMut(Step<K>) + Send,
) {
    let follower = Follower {
        client,
        url: K::url_path(&kind, select.namespace.as_deref()),
        select,
        metadata_only: K::metadata_api(),
    };
    shutdown.run_until_cancelled(follower.run(&mut sink)).await;
}

struct Follower {
    client: kube::Client,
    url: String,
    select: Select,
    metadata_only: bool,
}

impl Follower {
    async fn run<K: Object>(&self, sink: &mut (impl FnMut(Step<K>) + Send)) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut from: Option<String> = None;
        loop {
            let mut version = match from.take() {
                Some(version) => version,
                None => match self.list::<K>().await {
                    Ok((items, version)) => {
                        sink(Step::Replace(items, revision(&version)));
                        version
                    }
                    Err(error) => {
                        self.pause(&mut backoff, "list", &error).await;
                        continue;
                    }
                },
            };
            let began = Instant::now();
            let before = version.clone();
            let ended = self.watch(&mut version, sink).await;
            if version != before || began.elapsed() > RETRY.1 {
                backoff.reset();
            }
            match ended {
                Ended::Closed => {
                    if began.elapsed() < Duration::from_secs(1) {
                        tokio::time::sleep(backoff.next()).await;
                    }
                    from = Some(version);
                }
                Ended::Expired => debug!(url = self.url, "watch history expired, listing again"),
                Ended::Failed(error) => {
                    self.pause(&mut backoff, "watch", &error).await;
                    from = Some(version);
                }
                Ended::Silent => {
                    warn!(url = self.url, "watch went silent, resuming");
                    from = Some(version);
                }
            }
        }
    }

    async fn pause(&self, backoff: &mut Backoff, what: &str, error: &kube::Error) {
        let delay = backoff.next();
        if delay > Duration::from_secs(1) {
            warn!(url = self.url, %error, ?delay, "{what} failed, retrying");
        } else {
            debug!(url = self.url, %error, ?delay, "{what} failed, retrying");
        }
        tokio::time::sleep(delay).await;
    }

    /// Lists everything; falls back to one unpaged list when the pages' snapshot expires.
    async fn list<K: Object>(&self) -> Result<(Vec<K>, String), kube::Error> {
        match self.list_paged(Some(PAGE)).await {
            Err(error) if error.is_expired() => self.list_paged(None).await,
            other => other,
        }
    }

    async fn list_paged<K: Object>(
        &self,
        limit: Option<u32>,
    ) -> Result<(Vec<K>, String), kube::Error> {
        let mut params = ListParams {
            label_selector: self.select.labels.clone(),
            field_selector: self.select.fields.clone(),
            limit,
            ..ListParams::default()
        };
        let request = Request::new(self.url.clone());
        let mut all = Vec::new();
        loop {
            let built = if self.metadata_only {
                request.list_metadata(&params)
            } else {
                request.list(&params)
            };
            let page: ObjectList<K> =
                self.client.request(built.map_err(kube::Error::BuildRequest)?).await?;
            all.extend(page.items.into_iter().map(lean));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok((all, page.metadata.resource_version.unwrap_or_default())),
            }
        }
    }

    async fn watch<K: Object>(
        &self,
        version: &mut String,
        sink: &mut (impl FnMut(Step<K>) + Send),
    ) -> Ended {
        // Spread the ends of watches so that they do not all resume at one moment.
        let seconds = rand::random_range(240..290);
        let params = WatchParams {
            label_selector: self.select.labels.clone(),
            field_selector: self.select.fields.clone(),
            timeout: Some(seconds),
            bookmarks: true,
            send_initial_events: false,
        };
        let request = Request::new(self.url.clone());
        let built = if self.metadata_only {
            request.watch_metadata(&params, version)
        } else {
            request.watch(&params, version)
        };
        let built = match built {
            Ok(built) => built,
            Err(error) => return Ended::Failed(kube::Error::BuildRequest(error)),
        };
        let mut lines = match Lines::open(&self.client, built).await {
            Ok(lines) => lines,
            Err(error) if error.is_expired() => return Ended::Expired,
            Err(error) => return Ended::Failed(error),
        };
        let deadline =
            tokio::time::Instant::now() + Duration::from_secs(u64::from(seconds)) + GRACE;
        loop {
            match tokio::time::timeout_at(deadline, lines.next()).await {
                Err(_) => return Ended::Silent,
                Ok(None) => return Ended::Closed,
                Ok(Some(Err(error))) => return Ended::Failed(error),
                Ok(Some(Ok(event))) => {
                    if let Some(ended) = deliver(event, version, sink) {
                        return ended;
                    }
                }
            }
        }
    }
}

/// Hands one watch event to the sink and remembers its version.
fn deliver<K: Object>(
    event: Event<K>,
    version: &mut String,
    sink: &mut impl FnMut(Step<K>),
) -> Option<Ended> {
    let seen = |object: &K| object.meta().resource_version.clone().unwrap_or_default();
    match event {
        Event::Applied(object) => {
            *version = seen(&object);
            sink(Step::Apply(lean(object), revision(version)));
        }
        Event::Deleted(object) => {
            *version = seen(&object);
            sink(Step::Delete(lean(object), revision(version)));
        }
        Event::Bookmark(seen) => {
            *version = seen;
            sink(Step::Progress(revision(version)));
        }
        Event::Error(status) => {
            let error = kube::Error::Api(status);
            return Some(if error.is_expired() { Ended::Expired } else { Ended::Failed(error) });
        }
    }
    None
}

/// Drops what no component reads and every cache would hold.
fn lean<K: Object>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

/// Resource versions are decimal numbers; anything else counts as "before everything".
fn revision(version: &str) -> Revision {
    version.parse().unwrap_or(Revision(0))
}
