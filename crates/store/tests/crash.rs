//! Kills a process that writes, hundreds of times at random moments, and looks
//! whether everything that was acknowledged is there, whole, and in order.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use store::{Durability, Embedded, Expect, Guard, Options, Revision, Store, WatchError, Write};

const DIRECTORY: &str = "STORE_CRASH_DIRECTORY";
const TASKS: usize = 12;
/// Kills, or as many as fit into the time on a slow disk, but enough to say something.
const KILLS: usize = 250;
const FEWEST: usize = 50;
const TIME: Duration = Duration::from_secs(30);

fn open(directory: &Path) -> Embedded<()> {
    let options = Options {
        checkpoint_bytes: 512 << 10,
        history_bytes: 1 << 20,
        ..Options::new(directory.join("store")).seal(directory.join("key"), ["/registry/secrets/"])
    };
    Embedded::open(options, |_, _| ()).unwrap()
}

/// A value that shows whether it is whole: its number, and a filling whose
/// length and bytes follow from it.
fn value(task: usize, number: u64) -> Vec<u8> {
    let length = usize::try_from(number * 7919 % 4096).unwrap() + task;
    let mut value = format!("{task} {number} ").into_bytes();
    value.extend((0..length).map(|index| (index as u64 * 31 + number) as u8));
    value
}

fn number(task: usize, bytes: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
    let number = text.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(bytes == value(task, number), "half a value of task {task}: {text:?}");
    number
}

fn keys(task: usize) -> [String; 2] {
    [format!("/registry/pods/a/{task:02}"), format!("/registry/secrets/a/{task:02}")]
}

/// The writer that gets killed. Does nothing when run as a plain test.
#[test]
fn child_under_load() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(Path::new(&directory));
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..TASKS {
            tasks.spawn(write_for_ever(store.clone(), task));
        }
        tasks.join_next().await.unwrap().unwrap();
    });
}

/// Writes the next number to both keys of the task in one commit, and says so
/// when it is acknowledged. Every seventh number deletes the second key.
async fn write_for_ever(store: Embedded<()>, task: usize) {
    let [first, second] = keys(task);
    loop {
        let snapshot = store.snapshot();
        let record = snapshot.get(&first);
        let next = record.map_or(1, |record| number(task, &record.value) + 1);
        let expect = record.map_or(Expect::Absent, |record| Expect::Modified(record.modified));
        let bytes = value(task, next);
        let both = match next % 7 {
            0 => Write::delete(second.as_str()),
            _ => Write::put(second.as_str(), bytes.clone().into(), ()),
        };
        let writes = vec![Write::put(first.as_str(), bytes.into(), ()), both];
        let durability =
            if task.is_multiple_of(3) { Durability::Relaxed } else { Durability::Durable };
        let guards = vec![Guard::new(first.as_str(), expect)];
        let done = store.commit(guards, writes, durability).await.unwrap();
        // The test runner may have left a line unfinished.
        let line = format!("\nack {task} {next} {}\n", done.revision);
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
}

/// What was acknowledged last, by task: number and revision.
type Acknowledged = BTreeMap<usize, (u64, u64)>;

/// Starts the writer and kills it: so long after its start, or after its first
/// acknowledgement with `once_busy`.
fn kill_one(
    directory: &Path,
    once_busy: bool,
    after: Duration,
    acknowledged: &mut Acknowledged,
) -> usize {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child_under_load", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (busy, wait) = std::sync::mpsc::channel();
    let killer = std::thread::spawn(move || {
        if once_busy {
            wait.recv_timeout(Duration::from_secs(300)).unwrap();
        }
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap()
    });
    let mut count = 0;
    for line in output.split(b'\n') {
        let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
        let words: Vec<_> = line.split(' ').collect();
        // The last line may be cut off; its revision may then be too small.
        let ["ack", task, number, revision] = words[..] else { continue };
        let Ok(revision) = revision.parse() else { continue };
        acknowledged.insert(task.parse().unwrap(), (number.parse().unwrap(), revision));
        count += 1;
        // Nobody waits for the second one.
        let _ = busy.send(());
    }
    let status = killer.join().unwrap();
    assert!(status.code().is_none(), "the writer ended by itself: {status}");
    count
}

type Contents = BTreeMap<String, (Vec<u8>, u64)>;

fn contents(snapshot: &store::Snapshot<()>) -> Contents {
    let rows = snapshot
        .range("")
        .map(|(key, record)| (key.to_string(), (record.value.to_vec(), record.modified.0)));
    rows.collect()
}

/// Opens the store after a kill and checks it against what was acknowledged.
/// `kills` is how many there were since the last check.
fn check(
    directory: &Path,
    acknowledged: &mut Acknowledged,
    before: &mut (Revision, Contents),
    kills: u64,
) -> bool {
    let store = open(directory);
    let snapshot = store.snapshot();
    let newest = acknowledged.values().map(|(_, revision)| *revision).max().unwrap_or(0);
    assert!(snapshot.revision() >= Revision(newest));
    assert!(snapshot.revision() >= before.0, "revisions went back");
    for (task, (acked, _)) in acknowledged.iter_mut() {
        let [first, second] = keys(*task);
        let record = snapshot.get(&first).unwrap();
        let found = number(*task, &record.value);
        // Each kill may leave one that was written and not acknowledged any more.
        let expected = *acked..=*acked + kills;
        assert!(expected.contains(&found), "task {task}: {expected:?} but {found}");
        *acked = found;
        match snapshot.get(&second) {
            None => assert_eq!(found % 7, 0, "half a commit of task {task}"),
            Some(other) => {
                assert_eq!(number(*task, &other.value), found, "half a commit of task {task}");
                assert_eq!(other.modified, record.modified);
            }
        }
    }
    let now = contents(&snapshot);
    assert!(now.values().all(|(_, modified)| *modified <= snapshot.revision().0));

    // A watch from before the kill leads from what was then to what is now.
    let resumed = match store.watch("", before.0) {
        Ok(mut watch) => {
            let mut then = std::mem::take(&mut before.1);
            while let Some(event) = watch.try_next().unwrap() {
                match &event.current {
                    Some(record) => then
                        .insert(event.key.to_string(), (record.value.to_vec(), event.revision.0)),
                    None => then.remove(&*event.key),
                };
            }
            assert!(then == now, "the watch leads elsewhere");
            true
        }
        Err(WatchError::Compacted { .. }) => false,
        Err(error) => panic!("{error}"),
    };
    *before = (snapshot.revision(), now);
    resumed
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut acknowledged = Acknowledged::new();
    let mut before = {
        let store = open(directory.path());
        (store.snapshot().revision(), contents(&store.snapshot()))
    };
    let start = Instant::now();
    let (mut kills, mut unchecked, mut commits, mut resumed) = (0, 0, 0, 0);
    while kills < FEWEST || (kills < KILLS && start.elapsed() < TIME) {
        let once_busy = random.random_ratio(3, 4);
        let after = Duration::from_micros(random.random_range(0..30_000));
        commits += kill_one(directory.path(), once_busy, after, &mut acknowledged);
        kills += 1;
        // Now and then the next writer finds what the killed one left.
        unchecked += 1;
        if random.random_ratio(1, 2) {
            let same = check(directory.path(), &mut acknowledged, &mut before, unchecked);
            resumed += usize::from(same);
            unchecked = 0;
        }
    }
    check(directory.path(), &mut acknowledged, &mut before, unchecked);
    println!("{kills} kills, {commits} acknowledged commits, {resumed} watches resumed");
    assert!(commits >= kills && resumed > 0);
}
