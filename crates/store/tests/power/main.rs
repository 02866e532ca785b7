//! The embedded store on a disk that loses power, tears writes, fails and fills
//! up. What was acknowledged as durable must be there afterwards; what is there
//! must be a prefix of what happened; revisions must never be given out twice.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;
#[expect(unsafe_code, reason = "a SQLite VFS is a table of C functions")]
mod vfs;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use disk::{Disk, Kind};
use rand::{Rng, SeedableRng, rngs::StdRng};
use store::{CommitError, Durability, Embedded, Options, Revision, Store, WatchError, Write};

const TASKS: usize = 4;

/// A store on a disk, in a directory of its own that holds only its lock.
struct Setup {
    _directory: tempfile::TempDir,
    path: PathBuf,
    disk: Arc<Disk>,
    options: Options,
}

impl Setup {
    fn new(disk: Disk, no_fsync: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let disk = Arc::new(disk);
        let options = Options {
            vfs: Some(vfs::mount(&path, Arc::clone(&disk))),
            checkpoint_bytes: 96 << 10,
            history_bytes: 64 << 10,
            unsafe_no_fsync: no_fsync,
            ..Options::new(&path)
        };
        Self { _directory: directory, path, disk, options }
    }

    fn open(&self) -> Result<Embedded<()>, String> {
        Embedded::open(self.options.clone(), |_, _| ()).map_err(|error| error.to_string())
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        vfs::unmount(&self.path);
    }
}

#[derive(Debug, Clone, Copy)]
struct Acknowledged {
    task: usize,
    number: u64,
    revision: Revision,
    durable: bool,
}

/// What writers were told, over all lives of a store.
#[derive(Default)]
struct Ledger {
    acknowledged: Vec<Acknowledged>,
    /// Numbers that were tried and failed, by task: they may or may not be there.
    tried: BTreeMap<usize, u64>,
}

fn key(task: usize) -> String {
    format!("/k/{task}")
}

fn value(task: usize, number: u64) -> Vec<u8> {
    let length = usize::try_from(number * 2017 % 6000).unwrap();
    let mut value = format!("{task} {number} ").into_bytes();
    value.resize(value.len() + length, number as u8);
    value
}

fn number(task: usize, bytes: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(32)]).into_owned();
    let number = text.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or("no number")?;
    if bytes == value(task, number) { Ok(number) } else { Err(format!("half a value: {text}")) }
}

async fn write(
    store: &Embedded<()>,
    ledger: &Mutex<Ledger>,
    task: usize,
    next: u64,
    durable: bool,
) -> Result<(), CommitError<()>> {
    ledger.lock().unwrap().tried.insert(task, next);
    let writes = vec![
        Write::put(key(task), value(task, next).into(), ()),
        Write::put(format!("/twin/{task}"), value(task, next).into(), ()),
    ];
    let durability = if durable { Durability::Durable } else { Durability::Relaxed };
    let revision = store.commit(vec![], writes, durability).await?.revision;
    let acknowledged = Acknowledged { task, number: next, revision, durable };
    ledger.lock().unwrap().acknowledged.push(acknowledged);
    Ok(())
}

/// Writes until the disk fails or every task has done its share.
async fn load(store: &Embedded<()>, ledger: &Mutex<Ledger>, rounds: u64) {
    let task = |task: usize| async move {
        for round in 0..rounds {
            let next = ledger.lock().unwrap().tried.get(&task).copied().unwrap_or(0) + 1;
            let durable = !(round + task as u64).is_multiple_of(3);
            if write(store, ledger, task, next, durable).await.is_err() {
                return;
            }
        }
    };
    futures::future::join_all((0..TASKS).map(task)).await;
}

/// What is wrong with a store that came back, if anything is.
fn check(store: &Embedded<()>, ledger: &mut Ledger) -> Result<(), String> {
    let snapshot = store.snapshot();
    let mut found = BTreeMap::new();
    for task in 0..TASKS {
        let (one, twin) = (snapshot.get(&key(task)), snapshot.get(&format!("/twin/{task}")));
        match (one, twin) {
            (None, None) => {}
            (Some(one), Some(twin)) if one.modified == twin.modified => {
                found.insert(task, (number(task, &one.value)?, one.modified));
            }
            _ => return Err(format!("half a commit of task {task}")),
        }
    }
    let newest = found.values().map(|(_, revision)| *revision).max().unwrap_or_default();
    for acknowledged in &ledger.acknowledged {
        let Acknowledged { task, number, revision, durable } = acknowledged;
        let at = found.get(task).map_or(0, |(number, _)| *number);
        if at < *number && *durable {
            return Err(format!("lost: {acknowledged:?}, found {at}"));
        }
        if at < *number && *revision <= newest {
            return Err(format!("a hole: {acknowledged:?} is gone, and {newest} is there"));
        }
        if snapshot.revision() < *revision {
            return Err(format!("revision {revision} can be given out again"));
        }
        if at < *number && !matches!(store.watch("", *revision), Err(WatchError::Compacted { .. }))
        {
            return Err(format!("a watch resumes from {revision}, which was lost"));
        }
    }
    for (task, (number, _)) in &found {
        if *number > ledger.tried[task] {
            return Err(format!("task {task} never wrote {number}"));
        }
    }
    // What was lost need not be found the next time.
    ledger.acknowledged.retain(|acknowledged| acknowledged.revision <= newest);
    Ok(())
}

/// Lives of one store, each ended by a loss of power at a random operation.
async fn lives(seed: u64, lives: u32, no_fsync: bool) -> Result<usize, String> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut setup = Setup::new(Disk::new(random.random()), no_fsync);
    let ledger = Mutex::new(Ledger::default());
    let mut commits = 0;
    for life in 0..lives {
        let context = |error| format!("seed {seed}, life {life}: {error}");
        setup.disk.cut_after(random.random_range(1..300));
        // The power may go while it opens.
        if let Ok(store) = setup.open() {
            check(&store, &mut ledger.lock().unwrap()).map_err(context)?;
            let before = ledger.lock().unwrap().acknowledged.len();
            load(&store, &ledger, random.random_range(1..60)).await;
            commits += ledger.lock().unwrap().acknowledged.len() - before;
            if random.random_ratio(1, 4) {
                store.close().await;
            }
        }
        let remains = setup.disk.remains(random.random());
        setup = Setup::new(remains, no_fsync);
        let store = setup.open().map_err(context)?;
        check(&store, &mut ledger.lock().unwrap()).map_err(context)?;
        if random.random() {
            // Starts the next life from an end that was in order.
            drop(store);
        } else {
            setup = Setup::new(setup.disk.remains(random.random()), no_fsync);
        }
    }
    Ok(commits)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_durable_is_lost_when_the_power_goes() {
    let start = Instant::now();
    let base: u64 = rand::rng().random();
    println!("seeds from {base}");
    let (mut seeds, mut commits) = (0, 0);
    while seeds < 3 || start.elapsed() < Duration::from_secs(8) {
        match lives(base.wrapping_add(seeds), 12, false).await {
            Ok(count) => commits += count,
            Err(error) => panic!("{error}"),
        }
        seeds += 1;
    }
    println!("{} losses of power, {commits} acknowledged commits", seeds * 12);
    assert!(commits > 100);
}

/// The test above can fail: without syncs, it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_test_notices_when_nothing_is_synced() {
    let mut noticed = 0;
    for seed in 0..300 {
        let Err(error) = lives(seed, 12, true).await else { continue };
        noticed += 1;
        if error.contains("lost: ") {
            println!("noticed {noticed} times in {} tries: {error}", seed + 1);
            return;
        }
    }
    panic!("durable commits survive without syncs: this disk proves nothing ({noticed})");
}

/// Writes to a task until it works; says how often it failed.
async fn insist(store: &Embedded<()>, ledger: &Mutex<Ledger>, task: usize, durable: bool) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut failures = 0;
    loop {
        let before = store.snapshot();
        let next = ledger.lock().unwrap().tried.get(&task).copied().unwrap_or(0) + 1;
        match write(store, ledger, task, next, durable).await {
            Ok(()) => return failures,
            Err(CommitError::Io(_)) => failures += 1,
            Err(error) => panic!("{error}"),
        }
        let after = store.snapshot();
        assert_eq!(
            before.get(&key(task)).map(|record| record.modified),
            after.get(&key(task)).map(|record| record.modified),
            "a failed commit is visible"
        );
        assert!(Instant::now() < deadline, "the store does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The store mends itself even if nobody writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_store_comes_back() {
    let setup = Setup::new(Disk::new(1), false);
    let store = setup.open().unwrap();
    let ledger = Mutex::new(Ledger::default());
    load(&store, &ledger, 3).await;
    assert_eq!(store.fault(), None);
    setup.disk.fail(Kind::Sync, 2, false);
    assert!(write(&store, &ledger, 0, 9, true).await.is_err());
    assert!(store.fault().is_some());
    let deadline = Instant::now() + Duration::from_secs(120);
    while store.fault().is_some() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    insist(&store, &ledger, 0, true).await;
    store.close().await;
    assert!(store.fault().is_some());
}

async fn fault(kind: Kind, times: u64, evict: bool, seed: u64) {
    let setup = Setup::new(Disk::new(seed), false);
    let store = setup.open().unwrap();
    let ledger = Mutex::new(Ledger::default());
    load(&store, &ledger, 10).await;
    // Leave something relaxed that the failing sync may forget.
    write(&store, &ledger, 0, 1000, false).await.unwrap();
    setup.disk.fail(kind, times, evict);
    let mut failures = 0;
    for round in 0..30 {
        failures += insist(&store, &ledger, round % TASKS, round % 5 != 0).await;
    }
    assert!(failures > 0 || kind == Kind::Read, "{kind:?} was not noticed");
    let stats = store.stats();
    assert!(failures == 0 || stats.failures > 0);
    insist(&store, &ledger, 0, true).await;

    // Whatever was acknowledged before or after the fault is on the disk.
    let remains = setup.disk.remains(seed);
    drop(store);
    let setup = Setup::new(remains, false);
    let store = setup.open().unwrap();
    let mut ledger = ledger.into_inner().unwrap();
    check(&store, &mut ledger).unwrap();
    let last = ledger.acknowledged.iter().map(|done| (done.task, done.number));
    for (task, acknowledged) in last.collect::<BTreeMap<_, _>>() {
        let snapshot = store.snapshot();
        let found = number(task, &snapshot.get(&key(task)).unwrap().value).unwrap();
        assert_eq!(found, acknowledged, "a commit that failed came back ({kind:?})");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_writes_are_survived() {
    for (times, seed) in [(1, 1), (2, 2), (5, 3), (9, 4)] {
        fault(Kind::Write, times, false, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_syncs_are_survived() {
    for (times, evict) in [(1, false), (1, true), (2, true), (3, false), (5, true)] {
        for seed in 0..2 {
            fault(Kind::Sync, times, evict, seed).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_reads_are_survived() {
    for times in [1, 3] {
        fault(Kind::Read, times, false, times).await;
    }
}

/// A sync fails that has much to lose, and the power goes before the store has
/// mended itself.
async fn fault_then_cut(seed: u64) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let setup = Setup::new(Disk::new(seed), false);
    let store = setup.open()?;
    let ledger = Mutex::new(Ledger::default());
    load(&store, &ledger, 20).await;
    for round in 0..24 {
        let next = ledger.lock().unwrap().tried[&(round % TASKS)] + 1;
        write(&store, &ledger, round % TASKS, next, false).await.map_err(|e| e.to_string())?;
    }
    setup.disk.fail(Kind::Sync, random.random_range(1..3), random.random_ratio(1, 4));
    load(&store, &ledger, 1).await;
    let remains = if random.random() {
        setup.disk.cut_after(random.random_range(1..40));
        tokio::time::sleep(Duration::from_millis(210)).await;
        load(&store, &ledger, 5).await;
        setup.disk.remains(seed)
    } else {
        // The process is killed before that, and the power goes in the next life.
        let next = Setup::new(setup.disk.survivor(seed), false);
        let store = next.open()?;
        check(&store, &mut ledger.lock().unwrap())?;
        next.disk.cut_after(random.random_range(1..40));
        load(&store, &ledger, 30).await;
        next.disk.remains(seed)
    };
    drop(store);
    let setup = Setup::new(remains, false);
    let store = setup.open()?;
    check(&store, &mut ledger.into_inner().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_may_go_while_a_fault_is_mended() {
    let results = futures::future::join_all((0..160).map(fault_then_cut)).await;
    for (seed, result) in results.into_iter().enumerate() {
        result.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_recovers() {
    for room in [0, 1000, 40_000, 150_000] {
        let setup = Setup::new(Disk::new(room), false);
        let store = setup.open().unwrap();
        let ledger = Mutex::new(Ledger::default());
        load(&store, &ledger, 10).await;
        for _ in 0..3 {
            setup.disk.room(Some(usize::try_from(room).unwrap()));
            let mut full = 0;
            let mut next = ledger.lock().unwrap().tried[&0];
            // A checkpoint may make room once: it takes more than one to be sure.
            for filler in 0.. {
                if full == 5 {
                    break;
                }
                assert!(filler < 2000, "the disk does not fill");
                let writes = vec![Write::put(format!("/fill/{next}"), vec![1; 3000].into(), ())];
                let _ = store.commit(vec![], writes, Durability::Relaxed).await;
                next += 1;
                let kept = store.snapshot().get(&key(0)).unwrap().modified;
                match write(&store, &ledger, 0, next, true).await {
                    Ok(()) => {}
                    Err(CommitError::Full) => {
                        full += 1;
                        let snapshot = store.snapshot();
                        assert_eq!(snapshot.get(&key(0)).unwrap().modified, kept);
                        assert!(store.at(kept).is_ok() && store.watch("/", kept).is_ok());
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            setup.disk.room(None);
            next += 1;
            write(&store, &ledger, 0, next, true).await.expect("there is room again");
            load(&store, &ledger, 10).await;
        }
        let remains = setup.disk.remains(room);
        drop(store);
        let setup = Setup::new(remains, false);
        let store = setup.open().unwrap();
        check(&store, &mut ledger.into_inner().unwrap()).unwrap();
    }
}

#[test]
fn a_disk_that_is_full_from_the_start_says_so() {
    let disk = Disk::new(1);
    disk.room(Some(3000));
    let setup = Setup::new(disk, false);
    let error = setup.open().err().unwrap();
    assert!(error.contains("full") && error.contains("free some space"), "{error}");
    setup.disk.room(None);
    setup.open().unwrap();
    assert!(Path::new(&setup.path).exists());
}
