//! What every backend of the store must do. Each check gets a store that may
//! hold other things and be at any revision, and keeps to a prefix of its own.

use std::{sync::Arc, time::Duration};

use store::{
    CommitError, Committed, Durability, Event, Expect, Guard, ReadError, Revision, Store, Watch,
    WatchError, Write,
};

/// What the suite notes about a value: its length.
pub(crate) type Note = usize;
pub(crate) type AnyStore = dyn Store<Note>;

/// Runs every check of the suite as a test on the store that `$fresh` makes.
#[macro_export]
macro_rules! store_suite {
    ($fresh:expr) => {
        $crate::store_suite!(@ $fresh,
            writes_and_reads guards_hold_or_nothing_happens commits_are_atomic ranges
            snapshots_stay_as_they_are older_revisions_can_be_read watches_replay_and_follow
            watches_see_only_their_prefix progress_moves_on compaction_forgets
            waiting_for_a_revision concurrent_updates_lose_nothing limits
            commits_without_effect slow_watchers_are_cut_off relaxed_commits_are_seen
            many_watchers);
    };
    (@ $fresh:expr, $($name:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let (_keep, store) = $fresh;
            suite::$name(&store).await;
        })*
    };
}

pub(crate) fn put(key: &str, value: &str) -> Write<Note> {
    Write::put(key, value.to_owned().into(), value.len())
}

async fn apply(
    store: &AnyStore,
    guards: Vec<Guard>,
    writes: Vec<Write<Note>>,
) -> Result<Committed<Note>, CommitError<Note>> {
    tokio::time::timeout(Duration::from_secs(60), store.commit(guards, writes, Durability::Durable))
        .await
        .expect("a commit ends")
}

async fn must(store: &AnyStore, write: Write<Note>) -> Revision {
    apply(store, vec![], vec![write]).await.unwrap().revision
}

fn value(store: &AnyStore, key: &str) -> Option<String> {
    let snapshot = store.snapshot();
    snapshot.get(key).map(|record| String::from_utf8(record.value.to_vec()).unwrap())
}

async fn next(watch: &mut Watch<Note>) -> Arc<Event<Note>> {
    tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("an event").unwrap()
}

fn keys(store: &AnyStore, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let snapshot = store.snapshot();
    snapshot.range_after(prefix, after).take(limit).map(|(key, _)| key.to_string()).collect()
}

pub(crate) async fn writes_and_reads(store: &AnyStore) {
    let created = apply(store, vec![], vec![put("/rw/a", "one")]).await.unwrap();
    let record = created.records[0].clone().unwrap();
    assert_eq!((record.created, record.modified), (created.revision, created.revision));
    assert_eq!((&record.value[..], record.note), (&b"one"[..], 3));

    let updated = must(store, put("/rw/a", "two!")).await;
    assert!(updated > created.revision);
    let snapshot = store.latest().await.unwrap();
    let record = snapshot.get("/rw/a").unwrap();
    assert_eq!((record.created, record.modified), (created.revision, updated));
    assert_eq!(record.note, 4);

    let deleted = apply(store, vec![], vec![Write::delete("/rw/a")]).await.unwrap();
    assert!(deleted.revision > updated && deleted.records[0].is_none());
    assert_eq!(value(store, "/rw/a"), None);
    let again = must(store, put("/rw/a", "three")).await;
    assert_eq!(store.snapshot().get("/rw/a").unwrap().created, again);
}

pub(crate) async fn guards_hold_or_nothing_happens(store: &AnyStore) {
    let absent = || vec![Guard::new("/guards/a", Expect::Absent)];
    let present = || vec![Guard::new("/guards/a", Expect::Present)];
    let at = |revision| vec![Guard::new("/guards/a", Expect::Modified(revision))];

    let early = apply(store, present(), vec![put("/guards/a", "x")]).await;
    assert!(matches!(early, Err(CommitError::Conflict { current: None, .. })));
    let first = apply(store, absent(), vec![put("/guards/a", "1")]).await.unwrap().revision;
    match apply(store, absent(), vec![put("/guards/a", "2")]).await {
        Err(CommitError::Conflict { key, current }) => {
            assert_eq!((&*key, current.unwrap().modified), ("/guards/a", first));
        }
        other => panic!("{other:?}"),
    }
    let second = apply(store, at(first), vec![put("/guards/a", "2")]).await.unwrap().revision;
    assert!(apply(store, at(first), vec![put("/guards/a", "3")]).await.is_err());
    assert_eq!(value(store, "/guards/a").as_deref(), Some("2"));
    apply(store, at(second), vec![Write::delete("/guards/a")]).await.unwrap();
    assert!(apply(store, at(second), vec![Write::delete("/guards/a")]).await.is_err());

    // A guard may look at a key that is not written.
    let other = vec![Guard::new("/guards/other", Expect::Present)];
    assert!(apply(store, other, vec![put("/guards/b", "1")]).await.is_err());
    assert_eq!(value(store, "/guards/b"), None);
}

pub(crate) async fn commits_are_atomic(store: &AnyStore) {
    let from = must(store, put("/atomic/b", "old")).await;
    let mut watch = store.watch("/atomic/", from).unwrap();
    let writes = vec![put("/atomic/a", "1"), Write::delete("/atomic/b"), put("/atomic/c", "3")];
    let done = apply(store, vec![], writes).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = next(&mut watch).await;
        assert_eq!(event.revision, done.revision);
        seen.push((event.key.to_string(), event.current.is_some()));
    }
    seen.sort();
    let expected = [("/atomic/a", true), ("/atomic/b", false), ("/atomic/c", true)];
    assert_eq!(seen, expected.map(|(key, exists)| (key.to_owned(), exists)));
    let (before, after) = (store.at(from).unwrap(), store.at(done.revision).unwrap());
    assert_eq!((before.range("/atomic/").count(), after.range("/atomic/").count()), (1, 2));
}

pub(crate) async fn ranges(store: &AnyStore) {
    for key in ["/range/b/2", "/range/a", "/range/b/1", "/range/b/10", "/range/c", "/range0"] {
        must(store, put(key, "")).await;
    }
    assert_eq!(keys(store, "/range/b/", None, 9), ["/range/b/1", "/range/b/10", "/range/b/2"]);
    assert_eq!(keys(store, "/range/b/", Some("/range/b/1"), 1), ["/range/b/10"]);
    assert_eq!(keys(store, "/range/b/", Some("/range/a"), 1), ["/range/b/1"]);
    assert_eq!(keys(store, "/range/b/", Some("/range/b/9"), 9), Vec::<String>::new());
    assert_eq!(keys(store, "/range/", None, 99).len(), 5);
    assert_eq!(keys(store, "/range/b/1", None, 9), ["/range/b/1", "/range/b/10"]);
}

pub(crate) async fn snapshots_stay_as_they_are(store: &AnyStore) {
    let revision = must(store, put("/still/a", "1")).await;
    let snapshot = store.snapshot();
    must(store, put("/still/a", "2")).await;
    must(store, put("/still/b", "2")).await;
    assert!(snapshot.revision() >= revision && store.snapshot().revision() > snapshot.revision());
    assert_eq!(&snapshot.get("/still/a").unwrap().value[..], b"1");
    assert_eq!(snapshot.range("/still/").count(), 1);
}

pub(crate) async fn older_revisions_can_be_read(store: &AnyStore) {
    let mut revisions = Vec::new();
    for round in 0..20 {
        revisions.push(must(store, put("/past/a", &round.to_string())).await);
        if round % 3 == 0 {
            must(store, put(&format!("/past/b{round}"), "")).await;
        } else if round % 3 == 1 {
            must(store, Write::delete(format!("/past/b{}", round - 1))).await;
        }
    }
    for (round, revision) in revisions.iter().enumerate().rev() {
        let then = store.at(*revision).unwrap();
        assert_eq!(then.revision(), *revision);
        assert_eq!(&then.get("/past/a").unwrap().value[..], round.to_string().as_bytes());
        assert_eq!(then.get("/past/a").unwrap().modified, *revision);
        let others = then.range("/past/b").count();
        assert_eq!(others, usize::from(round % 3 == 1), "round {round}");
    }
    let future = Revision(store.snapshot().revision().0 + 1_000_000);
    assert!(matches!(store.at(future), Err(ReadError::Future { .. })));
}

pub(crate) async fn watches_replay_and_follow(store: &AnyStore) {
    let from = must(store, put("/watch/a", "1")).await;
    must(store, put("/watch/a", "2")).await;
    must(store, Write::delete("/watch/a")).await;
    let mut watch = store.watch("/watch/", from).unwrap();
    must(store, put("/watch/a", "3")).await;

    let mut seen = Vec::new();
    let mut last = from;
    for _ in 0..3 {
        let event = next(&mut watch).await;
        assert!(event.revision > last);
        last = event.revision;
        let text = |record: &Option<Arc<store::Record<Note>>>| {
            record.as_ref().map(|record| String::from_utf8(record.value.to_vec()).unwrap())
        };
        seen.push((text(&event.previous), text(&event.current)));
    }
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(seen, [(some("1"), some("2")), (some("2"), None), (None, some("3"))]);
    assert!(watch.try_next().unwrap().is_none());
    let future = Revision(last.0 + 1_000_000);
    assert!(matches!(store.watch("/watch/", future), Err(WatchError::Future { .. })));
}

pub(crate) async fn watches_see_only_their_prefix(store: &AnyStore) {
    let from = must(store, put("/prefix/start", "")).await;
    let prefixes = ["", "/", "/prefix/", "/prefix/a", "/prefix/a/", "/prefix/a/b", "/prefix/b/"];
    let mut watches: Vec<_> =
        prefixes.iter().map(|prefix| (*prefix, store.watch(prefix, from).unwrap())).collect();
    let written = ["/prefix/a/b", "/prefix/a/bc", "/prefix/ab", "/prefix/b/c", "/prefix/c"];
    for key in written {
        must(store, put(key, "")).await;
    }
    for (prefix, watch) in &mut watches {
        let expected: Vec<_> = written.iter().filter(|key| key.starts_with(*prefix)).collect();
        for key in expected {
            assert_eq!(&*next(watch).await.key, *key, "watch of {prefix:?}");
        }
        assert!(watch.try_next().unwrap().is_none(), "watch of {prefix:?}");
    }
}

pub(crate) async fn progress_moves_on(store: &AnyStore) {
    let from = must(store, put("/progress/a", "")).await;
    let mut watch = store.watch("/progress/", from).unwrap();
    assert_eq!(watch.progress(), from);
    let other = must(store, put("/elsewhere/a", "")).await;
    assert_eq!(watch.progress(), other, "events elsewhere move it");
    let writes = vec![put("/progress/b", ""), put("/progress/c", "")];
    let both = apply(store, vec![], writes).await.unwrap().revision;
    assert!(watch.progress() < both);
    next(&mut watch).await;
    assert!(watch.progress() < both, "half of a commit is not all of it");
    next(&mut watch).await;
    assert_eq!(watch.progress(), both);
}

pub(crate) async fn compaction_forgets(store: &AnyStore) {
    let first = must(store, put("/compact/a", "1")).await;
    let second = must(store, put("/compact/a", "2")).await;
    let third = must(store, Write::delete("/compact/b")).await.max(second);
    must(store, put("/compact/b", "4")).await;
    store.compact(second).await.unwrap();

    assert!(matches!(store.at(first), Err(ReadError::Compacted { .. })));
    match store.watch("/compact/", first) {
        Err(WatchError::Compacted { revision, oldest }) => {
            assert_eq!(revision, first);
            assert!(oldest >= second);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(&store.at(third).unwrap().get("/compact/a").unwrap().value[..], b"2");
    let mut watch = store.watch("/compact/", third).unwrap();
    assert_eq!(&*next(&mut watch).await.key, "/compact/b");
    assert_eq!(value(store, "/compact/a").as_deref(), Some("2"));
}

pub(crate) async fn waiting_for_a_revision(store: &AnyStore) {
    let now = must(store, put("/wait/a", "")).await;
    assert!(store.at_least(now).await.unwrap().revision() >= now);
    let mut later = Box::pin(store.at_least(Revision(now.0 + 2)));
    let early = tokio::time::timeout(Duration::from_millis(20), &mut later).await;
    assert!(early.is_err());
    while store.snapshot().revision().0 < now.0 + 2 {
        must(store, put("/wait/a", "")).await;
    }
    let reached = tokio::time::timeout(Duration::from_secs(60), later).await.unwrap().unwrap();
    assert!(reached.revision().0 >= now.0 + 2);
}

pub(crate) async fn concurrent_updates_lose_nothing(store: &AnyStore) {
    must(store, put("/count/a", "0")).await;
    let increment = |_| async move {
        for _ in 0..25 {
            loop {
                let snapshot = store.latest().await.unwrap();
                let record = snapshot.get("/count/a").unwrap();
                let count: u32 = std::str::from_utf8(&record.value).unwrap().parse().unwrap();
                let guard = Guard::new("/count/a", Expect::Modified(record.modified));
                let write = put("/count/a", &(count + 1).to_string());
                match apply(store, vec![guard], vec![write]).await {
                    Ok(_) => break,
                    Err(CommitError::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    futures::future::join_all((0..8).map(increment)).await;
    assert_eq!(value(store, "/count/a").as_deref(), Some("200"));
}

pub(crate) async fn limits(store: &AnyStore) {
    let before = store.snapshot().revision();
    let twice = vec![put("/limits/a", "1"), Write::delete("/limits/a")];
    let long = vec![put(&"k".repeat(5000), "")];
    let large = vec![Write::put("/limits/b", vec![0; 17 << 20].into(), 0)];
    let many = (0..5000).map(|n| put(&format!("/limits/{n}"), "")).collect();
    for writes in [twice, long, large, many, vec![put("", "")]] {
        assert!(matches!(apply(store, vec![], writes).await, Err(CommitError::Invalid(_))));
    }
    assert_eq!(store.snapshot().range("/limits/").count(), 0);
    assert!(store.snapshot().revision() >= before);
    let fits = vec![Write::put("/limits/c", vec![7; 3 << 20].into(), 0)];
    apply(store, vec![], fits).await.unwrap();
    assert_eq!(store.snapshot().get("/limits/c").unwrap().value.len(), 3 << 20);
}

pub(crate) async fn commits_without_effect(store: &AnyStore) {
    let now = must(store, put("/nothing/a", "")).await;
    let mut watch = store.watch("/nothing/", now).unwrap();
    let deleted = apply(store, vec![], vec![Write::delete("/nothing/b")]).await.unwrap();
    assert_eq!((deleted.revision, deleted.records.len()), (now, 1));
    let guard = vec![Guard::new("/nothing/a", Expect::Modified(now))];
    assert_eq!(apply(store, guard, vec![]).await.unwrap().revision, now);
    assert!(watch.try_next().unwrap().is_none());
}

pub(crate) async fn slow_watchers_are_cut_off(store: &AnyStore) {
    let from = must(store, put("/slow/a", "")).await;
    let mut slow = store.watch("/slow/", from).unwrap();
    let mut other = store.watch("/other/", from).unwrap();
    let mut pending = Vec::new();
    for round in 0..20_000 {
        pending.push(store.commit(vec![], vec![put("/slow/a", "x")], Durability::Relaxed));
        if round % 500 == 499 {
            futures::future::try_join_all(pending.drain(..)).await.unwrap();
        }
    }
    let end = loop {
        match slow.try_next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the watch neither lags nor ends"),
            Err(error) => break error,
        }
    };
    assert_eq!(end, WatchError::Lagged);
    assert!(slow.next().await.is_err());
    must(store, put("/other/a", "")).await;
    assert_eq!(&*next(&mut other).await.key, "/other/a", "others go on");
}

pub(crate) async fn relaxed_commits_are_seen(store: &AnyStore) {
    let from = must(store, put("/relaxed/a", "1")).await;
    let mut watch = store.watch("/relaxed/", from).unwrap();
    let relaxed = store
        .commit(vec![], vec![put("/relaxed/a", "2")], Durability::Relaxed)
        .await
        .unwrap()
        .revision;
    assert_eq!(value(store, "/relaxed/a").as_deref(), Some("2"));
    let guard = vec![Guard::new("/relaxed/a", Expect::Modified(relaxed))];
    let durable = apply(store, guard, vec![put("/relaxed/a", "3")]).await.unwrap().revision;
    assert_eq!(next(&mut watch).await.revision, relaxed);
    assert_eq!(next(&mut watch).await.revision, durable);
}

pub(crate) async fn many_watchers(store: &AnyStore) {
    let from = must(store, put("/many/start", "")).await;
    let mut watches: Vec<_> = (0..3000)
        .map(|number| store.watch(&format!("/many/{:04}/", number % 1500), from).unwrap())
        .collect();
    for number in 0..1500 {
        must_relaxed(store, &format!("/many/{number:04}/x")).await;
    }
    for (number, watch) in watches.iter_mut().enumerate() {
        assert_eq!(&*next(watch).await.key, format!("/many/{:04}/x", number % 1500));
        assert!(watch.try_next().unwrap().is_none());
    }
}

async fn must_relaxed(store: &AnyStore, key: &str) {
    store.commit(vec![], vec![put(key, "")], Durability::Relaxed).await.unwrap();
}
