//! The one watch that feeds the map: resumed where it broke, begun anew when
//! what was missed is compacted.
//!
//! It watches all keys of etcd, so that whatever revision etcd tells, the map
//! gets there.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{
    Shared,
    coding::{Coding, CodingError, WriteId, number, revision},
    members::{Failure, Members},
    pending::Pending,
    proto::{Event as Change, RangeRequest, event::EventType},
};
use crate::{Event, Revision, Snapshot, snapshot::Map};

/// Keys that are read at a time.
const PAGE: i64 = 500;
/// The longest pause between attempts to watch.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Why a watch ended.
enum End {
    /// What comes next is no longer kept.
    Compacted,
    /// The member went, or was given up.
    Broken(String),
    /// A value cannot be used; going on would hide it.
    Unusable(String),
}

/// Why a listing failed.
pub(super) enum ListError {
    Etcd(Failure),
    Coding(CodingError),
}

impl From<Failure> for ListError {
    fn from(failure: Failure) -> Self {
        Self::Etcd(failure)
    }
}

/// Everything that etcd held at `at`, or holds now if that is 0. Tells `pending`
/// which of its writes are there.
pub(super) async fn list<N>(
    members: &Members,
    coding: &Coding<N>,
    pending: &Pending,
    at: i64,
    patience: Duration,
) -> Result<Snapshot<N>, ListError> {
    let (mut key, range_end) = coding.range("/");
    let (mut map, mut at) = (Map::new(), at);
    loop {
        let request = RangeRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            limit: PAGE,
            revision: at,
            ..RangeRequest::default()
        };
        let page = members.range(request, Instant::now() + patience).await?;
        if at == 0 {
            at = page.revision();
        }
        for kv in &page.kvs {
            let Some(key) = coding.store_key(&kv.key) else { continue };
            if let Some(id) = WriteId::of(&kv.value) {
                pending.saw(id, revision(kv.mod_revision));
            }
            let record = coding.record(&key, kv).map_err(ListError::Coding)?;
            map.insert(key, Arc::new(record));
        }
        match page.kvs.last() {
            Some(last) if page.more => key = Bytes::from([&last.key[..], b"\0"].concat()),
            _ => return Ok(Snapshot::new(map, revision(at))),
        }
    }
}

/// Feeds the map until the store closes.
pub(super) async fn run<N: Send + Sync + 'static>(shared: Arc<Shared<N>>) {
    let (mut turn, mut pause) = (0, Duration::ZERO);
    loop {
        let before = shared.hub.snapshot().revision();
        let end = tokio::select! {
            () = shared.closing.cancelled() => return,
            () = shared.stalled.notified() => End::Broken("it fell behind".to_owned()),
            end = follow(&shared, turn) => end,
        };
        match end {
            End::Compacted => begin_anew(&shared).await,
            End::Broken(why) => {
                tracing::debug!(error = why, "the watch of etcd ended; resuming");
                turn += 1;
            }
            End::Unusable(why) => {
                tracing::error!(error = why, "etcd holds a value that cannot be used");
                *shared.fault.lock() = Some(why);
            }
        }
        let progressed = shared.hub.snapshot().revision() > before;
        pause = if progressed { Duration::ZERO } else { (pause * 2).clamp(PAUSE, MAX_PAUSE) };
        tokio::select! {
            () = shared.closing.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// The first pause.
const PAUSE: Duration = Duration::from_millis(20);

async fn follow<N: Send + Sync + 'static>(shared: &Shared<N>, turn: usize) -> End {
    let start = number(shared.hub.snapshot().revision()) + 1;
    let (_open, mut stream) = match shared.members.watch(turn, start).await {
        Ok(opened) => opened,
        Err(failure) => return End::Broken(failure.to_string()),
    };
    // A revision may come in pieces; it is shown when it is complete.
    let mut changes = Vec::new();
    loop {
        let answer = match stream.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return End::Broken("the member ended it".to_owned()),
            Err(status) => return End::Broken(Failure::from(status).to_string()),
        };
        if answer.compact_revision > 0 {
            return End::Compacted;
        }
        if answer.canceled {
            return End::Broken(answer.cancel_reason);
        }
        changes.extend(answer.events);
        if !answer.fragment && !changes.is_empty() {
            if let Err(error) = apply(shared, std::mem::take(&mut changes)) {
                return End::Unusable(error.to_string());
            }
            shared.fault.lock().take();
        }
    }
}

/// Makes complete revisions visible.
fn apply<N: Send + Sync + 'static>(
    shared: &Shared<N>,
    changes: Vec<Change>,
) -> Result<(), CodingError> {
    let before = shared.hub.snapshot();
    let mut map = before.map().clone();
    let (mut last, mut events, mut seen) = (before.revision(), Vec::new(), Vec::new());
    for change in changes {
        let deleted = change.r#type() == EventType::Delete;
        let Some(kv) = change.kv else { continue };
        let at = revision(kv.mod_revision);
        if at <= before.revision() {
            continue;
        }
        last = last.max(at);
        let key = shared.coding.store_key(&kv.key);
        if !deleted
            && (key.is_some() || kv.key == shared.mark)
            && let Some(id) = WriteId::of(&kv.value)
        {
            seen.push((id, at));
        }
        let Some(key) = key else { continue };
        if deleted {
            if let Some(previous) = map.remove(key.as_str()) {
                let previous = Some(previous);
                events.push(Arc::new(Event { revision: at, key, previous, current: None }));
            }
            continue;
        }
        let record = Arc::new(shared.coding.record(&key, &kv)?);
        let previous = map.insert(key.clone(), Arc::clone(&record));
        events.push(Arc::new(Event { revision: at, key, previous, current: Some(record) }));
    }
    for (id, at) in seen {
        shared.pending.saw(id, at);
    }
    shared.hub.publish(Snapshot::new(map, last), events, super::now());
    Ok(())
}

/// Reads everything again. What happened in between is not known: watches end
/// and revisions before are gone.
async fn begin_anew<N: Send + Sync + 'static>(shared: &Shared<N>) {
    let Shared { members, coding, pending, options, .. } = shared;
    match list(members, coding, pending, 0, options.patience).await {
        Ok(snapshot) => {
            tracing::warn!(
                revision = %snapshot.revision(),
                "etcd has compacted what this server had not seen; everything was read again"
            );
            // Whatever of ours is not among this may have taken place unseen.
            pending.missed();
            shared.hub.replace(snapshot);
        }
        Err(ListError::Etcd(failure)) => {
            tracing::debug!(error = %failure, "etcd cannot be read");
        }
        Err(ListError::Coding(error)) => {
            tracing::error!(%error, "etcd holds a value that cannot be used");
            *shared.fault.lock() = Some(error.to_string());
        }
    }
}

/// Lets etcd forget what is older than one to two intervals. All servers try;
/// the one that moves the shared mark does it.
pub(super) async fn compact<N: Send + Sync + 'static>(shared: Arc<Shared<N>>, mark: Bytes) {
    use super::proto::{TxnRequest, put_op, read_op, written_times};
    let (mut version, mut noted): (i64, i64) = (0, 0);
    loop {
        tokio::select! {
            () = shared.closing.cancelled() => return,
            () = sleep(shared.options.compact_every) => {}
        }
        let now = number(shared.hub.snapshot().revision());
        let request = TxnRequest {
            compare: vec![written_times(mark.clone(), version)],
            success: vec![put_op(mark.clone(), now.to_string().into())],
            failure: vec![read_op(mark.clone())],
        };
        match shared.members.transact(request).await {
            Ok(done) if done.succeeded => {
                if noted > 0
                    && let Err(failure) = shared.members.compact(noted).await
                {
                    tracing::debug!(error = %failure, "etcd was not compacted; it will be later");
                }
                (version, noted) = (version + 1, now);
            }
            Ok(other) => {
                let Some(kv) = other.read(0) else {
                    (version, noted) = (0, 0);
                    continue;
                };
                version = kv.version;
                let text = std::str::from_utf8(&kv.value).unwrap_or_default();
                noted = text.parse().unwrap_or(0);
            }
            Err(failure) => tracing::debug!(error = %failure, "etcd was not compacted"),
        }
    }
}

/// Finds out etcd's revision for all that wait, one question at a time: who
/// asks while one is under way shares the next.
pub(super) async fn tell_revision<N: Send + Sync + 'static>(
    shared: Arc<Shared<N>>,
    mut asked: tokio::sync::mpsc::UnboundedReceiver<super::Asker>,
) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, usize::MAX).await > 0 {
        let answer: Result<Revision, String> = tokio::select! {
            () = shared.closing.cancelled() => return,
            answer = shared.members.revision(Instant::now() + shared.options.patience) => {
                answer.map(revision).map_err(|failure| failure.to_string())
            }
        };
        *shared.away.lock() = answer.as_ref().err().cloned();
        for asker in waiting.drain(..) {
            let _ = asker.send(answer.clone());
        }
    }
}
