//! The embedded backend: the suite, and what only a store on this machine's
//! disk can do wrong.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod suite;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use store::{
    CommitError, Durability, Embedded, OpenError, Options, ReadError, Revision, SealError, Store,
    WatchError, Write,
};
use suite::{Note, put};
use tempfile::TempDir;

fn open(options: Options) -> Result<Embedded<Note>, OpenError> {
    Embedded::open(options, |_, value| value.len())
}

fn fresh() -> (TempDir, Embedded<Note>) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(Options::new(directory.path().join("store"))).unwrap();
    (directory, store)
}

store_suite!(fresh());

async fn commit(store: &Embedded<Note>, write: Write<Note>) -> Revision {
    store.commit(vec![], vec![write], Durability::Durable).await.unwrap().revision
}

fn contents(store: &Embedded<Note>) -> Vec<(String, Vec<u8>, u64, u64, usize)> {
    let snapshot = store.snapshot();
    let rows = snapshot.range("").map(|(key, record)| {
        let (created, modified) = (record.created.0, record.modified.0);
        (key.to_string(), record.value.to_vec(), created, modified, record.note)
    });
    rows.collect()
}

/// A closed store with some history in it, and what it held.
async fn closed(directory: &Path) -> Vec<(String, Vec<u8>, u64, u64, usize)> {
    let store = open(Options::new(directory)).unwrap();
    for round in 0..30 {
        for key in ["/a", "/b", "/c"] {
            commit(&store, put(key, &format!("{key} {round}"))).await;
        }
    }
    commit(&store, Write::delete("/b")).await;
    let contents = contents(&store);
    store.close().await;
    contents
}

/// Changes the database of a closed store behind its back.
fn meddle(directory: &Path, sql: &str) -> usize {
    let connection = rusqlite::Connection::open(directory.join("store.db")).unwrap();
    let changed = connection.execute(sql, []).unwrap();
    connection.close().unwrap();
    changed
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deeper/store");
    let before = closed(&path).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);

    let store = open(Options::new(&path)).unwrap();
    assert_eq!(contents(&store), before);
    let revision = store.snapshot().revision();
    assert_eq!(revision, Revision(1 + 91), "a clean restart skips no revision");

    // Watches resume, with what was before; the past can be read.
    let mut watch = store.watch("/", Revision(revision.0 - 2)).unwrap();
    let event = watch.try_next().unwrap().unwrap();
    assert_eq!((&*event.key, event.revision.0), ("/c", revision.0 - 1));
    assert_eq!(&event.previous.as_ref().unwrap().value[..], b"/c 28");
    let event = watch.try_next().unwrap().unwrap();
    assert_eq!((&*event.key, event.current.is_none()), ("/b", true));
    assert!(watch.try_next().unwrap().is_none());
    let past = store.at(Revision(2)).unwrap();
    assert_eq!(past.range("").count(), 1);

    let next = commit(&store, put("/d", "")).await;
    assert_eq!(next.0, revision.0 + 1);
}

#[tokio::test]
async fn closing_ends_everything_but_snapshots() {
    let (directory, store) = fresh();
    let revision = commit(&store, put("/a", "1")).await;
    let mut watch = store.watch("/", revision).unwrap();
    let waiting = store.at_least(Revision(revision.0 + 5));
    store.close().await;
    assert_eq!(watch.next().await.unwrap_err(), WatchError::Closed);
    assert_eq!(waiting.await.unwrap_err(), ReadError::Closed);
    assert!(matches!(store.watch("/", revision), Err(WatchError::Closed)));
    let late = store.commit(vec![], vec![put("/a", "2")], Durability::Durable).await;
    assert!(matches!(late, Err(CommitError::Closed)));
    assert!(matches!(store.compact(revision).await, Err(CommitError::Closed)));
    assert_eq!(&store.snapshot().get("/a").unwrap().value[..], b"1");
    // The lock is free again although handles are left.
    open(Options::new(directory.path().join("store"))).unwrap();
}

#[tokio::test]
async fn dropping_the_last_handle_closes() {
    let (directory, store) = fresh();
    let pending = store.commit(vec![], vec![put("/a", "1")], Durability::Durable);
    drop(store);
    pending.await.unwrap();
    let store = open(Options::new(directory.path().join("store"))).unwrap();
    assert_eq!(store.snapshot().len(), 1);
}

#[tokio::test]
async fn a_second_opener_is_refused() {
    let (directory, _store) = fresh();
    let error = open(Options::new(directory.path().join("store"))).err().unwrap();
    assert!(matches!(error, OpenError::InUse { .. }));
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[tokio::test]
async fn newer_and_foreign_databases_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let newer = directory.path().join("newer");
    closed(&newer).await;
    meddle(&newer, "PRAGMA user_version=7");
    let error = open(Options::new(&newer)).err().unwrap();
    assert!(matches!(error, OpenError::Newer { found: 7, supported: 1, .. }), "{error}");

    let foreign = directory.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    meddle(&foreign, "CREATE TABLE somebody_elses (x)");
    let error = open(Options::new(&foreign)).err().unwrap();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");

    let text = directory.path().join("text");
    fs::create_dir(&text).unwrap();
    fs::write(text.join("store.db"), "not a database, but long enough to look like one".repeat(99))
        .unwrap();
    let error = open(Options::new(&text)).err().unwrap();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");

    fs::write(directory.path().join("file"), "").unwrap();
    let error = open(Options::new(directory.path().join("file"))).err().unwrap();
    assert!(error.to_string().contains("check that the directory exists"), "{error}");
}

#[tokio::test]
async fn a_damaged_tail_is_cut_and_revisions_stay_unique() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let before = closed(&path).await;
    // The last two changes: /c of round 29 and the deletion of /b.
    let damage = "UPDATE log SET time = time + 1 WHERE seq >= (91 << 12)";
    assert_eq!(meddle(&path, damage), 2);

    let store = open(Options::new(&path)).unwrap();
    let mut expected = before;
    expected.retain(|(key, ..)| key == "/a");
    let after = contents(&store);
    assert_eq!(after[0], expected[0]);
    assert_eq!((&*after[1].0, &after[1].1[..]), ("/b", &b"/b 29"[..]));
    assert_eq!((&*after[2].0, &after[2].1[..]), ("/c", &b"/c 28"[..]));
    assert!(store.snapshot().revision() >= Revision(92), "lost revisions are not given out again");
    store.close().await;
    open(Options::new(&path)).unwrap();
}

#[tokio::test]
async fn damage_elsewhere_stops_the_start_and_changes_nothing() {
    let cases = [
        ("UPDATE log SET value = 'x' WHERE seq = (50 << 12)", "wrong checksum"),
        ("UPDATE log SET key = '/z' WHERE seq = (50 << 12)", "wrong checksum"),
        ("DELETE FROM log WHERE seq = (50 << 12)", "the one before it is"),
        ("UPDATE state SET reserved = 3", "state row"),
        ("DELETE FROM state", ""),
    ];
    for (damage, message) in cases {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        closed(&path).await;
        assert_eq!(meddle(&path, damage), 1);
        let rows = |path: &Path| meddle(path, "UPDATE log SET kind = kind");
        let before = rows(&path);
        let error = open(Options::new(&path)).err().unwrap();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{damage}: {error}");
        assert!(error.to_string().contains(message), "{damage}: {error}");
        assert!(error.to_string().contains("restore a backup"), "{error}");
        assert_eq!(rows(&path), before);
    }
}

#[tokio::test]
async fn a_page_of_garbage_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    closed(&path).await;
    let file = path.join("store.db");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.windows(5).rposition(|window| window == b"/a 14").unwrap();
    bytes[middle..middle + 400].fill(0xee);
    fs::write(&file, bytes).unwrap();
    let error = open(Options::new(&path)).err().unwrap();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn history_is_bounded_on_disk_and_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let options =
        || Options { history_bytes: 3 << 20, recent_bytes: 2 << 20, ..Options::new(&path) };
    let store = open(options()).unwrap();
    let value = "v".repeat(10_000);
    let mut first = None;
    for _ in 0..40 {
        let writes: Vec<_> = (0..50).map(|key| put(&format!("/k{key}"), &value)).collect();
        let done = store.commit(vec![], writes, Durability::Relaxed).await.unwrap();
        first.get_or_insert(done.revision);
    }
    // 20 MB went through; a write or two let compaction catch up.
    store.compact(Revision(5)).await.unwrap();
    assert!(store.stats().recent_bytes <= 2 << 20);
    assert!(matches!(store.at(first.unwrap()), Err(ReadError::Compacted { .. })));
    let before = contents(&store);
    store.close().await;
    let connection = rusqlite::Connection::open(path.join("store.db")).unwrap();
    let rows: i64 = connection.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).unwrap();
    drop(connection);
    assert!(rows < 50 + 500, "{rows} rows are left");
    let store = open(options()).unwrap();
    assert_eq!(contents(&store), before);
    store.compact(Revision(u64::MAX)).await.unwrap();
    store.close().await;
    let store = open(options()).unwrap();
    assert_eq!(contents(&store), before);
    let now = store.snapshot().revision();
    assert!(store.watch("/", now).is_ok());
    assert!(store.watch("/", Revision(now.0 - 1)).is_err());
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn search(directory: &Path, needle: &str) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| {
        fs::read(path).unwrap().windows(needle.len()).any(|window| window == needle.as_bytes())
    };
    files(directory).into_iter().filter(holds).collect()
}

fn sealed(directory: &Path) -> Options {
    Options::new(directory.join("store"))
        .seal(directory.join("keys/sealing.key"), ["/registry/secrets/"])
}

#[tokio::test]
async fn sealed_values_are_nowhere_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let store = open(sealed(path)).unwrap();
    for round in 0..50 {
        commit(&store, put("/registry/secrets/a/b", &format!("correct horse {round}"))).await;
        commit(&store, put("/registry/configmaps/a/b", &format!("plain as day {round}"))).await;
    }
    assert_eq!(search(path, "correct horse"), Vec::<PathBuf>::new(), "while it runs");
    assert!(!search(path, "plain as day").is_empty(), "the search finds what is not sealed");
    let before = contents(&store);
    store.close().await;
    assert_eq!(search(path, "correct horse"), Vec::<PathBuf>::new(), "after it ran");

    let store = open(sealed(path)).unwrap();
    assert_eq!(contents(&store), before);
    let past = store.at(Revision(2)).unwrap();
    assert_eq!(&past.get("/registry/secrets/a/b").unwrap().value[..], b"correct horse 0");
}

#[tokio::test]
async fn sealed_values_need_their_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let store = open(sealed(path)).unwrap();
    commit(&store, put("/registry/secrets/a/b", "x")).await;
    store.close().await;
    let key = path.join("keys/sealing.key");
    let kept = fs::read(&key).unwrap();

    fs::remove_file(&key).unwrap();
    let error = open(sealed(path)).err().unwrap();
    assert!(matches!(error, OpenError::Seal(SealError::Missing { .. })), "{error}");
    assert!(!key.exists(), "no new key takes its place");

    fs::write(&key, "00000000 ".to_owned() + &"11".repeat(32) + "\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let error = open(sealed(path)).err().unwrap();
    assert!(matches!(error, OpenError::Seal(SealError::Unknown { .. })), "{error}");

    let error = open(Options::new(path.join("store"))).err().unwrap();
    assert!(matches!(error, OpenError::Seal(SealError::Unconfigured)), "{error}");

    fs::write(&key, kept).unwrap();
    assert_eq!(open(sealed(path)).unwrap().snapshot().len(), 1);
}

#[tokio::test]
async fn key_rotation_rewrites_what_was_sealed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let store = open(sealed(path)).unwrap();
    for number in 0..200 {
        commit(&store, put(&format!("/registry/secrets/a/{number}"), "correct horse")).await;
    }
    commit(&store, put("/registry/pods/a/b", "plain")).await;
    let key = path.join("keys/sealing.key");
    let old = fs::read_to_string(&key).unwrap();
    store.rotate_sealing_key().await.unwrap();
    let new = fs::read_to_string(&key).unwrap();
    assert_ne!(old, new);
    assert_eq!(new.lines().filter(|line| !line.starts_with('#')).count(), 1);
    commit(&store, put("/registry/secrets/a/new", "correct horse")).await;
    let before = contents(&store);
    store.close().await;
    let store = open(sealed(path)).unwrap();
    assert_eq!(contents(&store), before);
    drop(store);

    let plain = tempfile::tempdir().unwrap();
    let store = open(Options::new(plain.path())).unwrap();
    assert!(matches!(store.rotate_sealing_key().await, Err(SealError::Unconfigured)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_commits_share_one_sync() {
    let (_directory, store) = fresh();
    let pending: Vec<_> = (0..5000)
        .map(|number| {
            let write = put(&format!("/k{number}"), "v");
            store.commit(vec![], vec![write], Durability::Durable)
        })
        .collect();
    let mut last = Revision(0);
    for commit in pending {
        let revision = commit.await.unwrap().revision;
        assert!(revision > last, "commits are applied in the order they were made");
        last = revision;
    }
    let stats = store.stats();
    assert_eq!(stats.commits, 5000);
    assert!(stats.batches < 500, "{stats:?}");
    assert!(stats.syncs <= stats.batches);
}

#[tokio::test]
async fn relaxed_commits_are_synced_within_a_second_and_only_once() {
    let (_directory, store) = fresh();
    let (before, began) = (store.stats().syncs, tokio::time::Instant::now());
    // On a machine that stands still, time for a sync may pass before all are made.
    let due = || began.elapsed().as_millis() as u64 / 500;
    for _ in 0..10 {
        store.commit(vec![], vec![put("/beat", "x")], Durability::Relaxed).await.unwrap();
    }
    assert!(store.stats().syncs - before <= due());
    while store.stats().syncs == before {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(store.stats().syncs - before <= due());
}
