//! The embedded store against a model that is too simple to be wrong: random
//! commits, reads of the past, watches, compactions and restarts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use store::{
    CommitError, Durability, Embedded, Event, Expect, Guard, Options, ReadError, Revision, Store,
    Watch, WatchError, Write,
};

const KEYS: [&str; 7] = ["/a", "/a/1", "/a/2", "/b/1", "/b/1/x", "/b/2", "/secret/s"];
const PREFIXES: [&str; 5] = ["/", "/a", "/a/", "/b/1", "/secret/"];

#[derive(Debug, Clone)]
enum Step {
    /// Guards as (key, kind), writes as (key, value or deletion).
    Commit(Vec<(usize, u8)>, BTreeMap<usize, Option<u16>>, bool),
    /// Several commits that wait together.
    Burst(Vec<(usize, u16)>),
    Watch(usize, u64),
    Read(u64),
    Compact(u64),
    Restart,
    RotateKey,
}

fn step() -> impl Strategy<Value = Step> {
    let guards = prop::collection::vec((0..KEYS.len(), 0..4u8), 0..3);
    let value = prop::option::weighted(0.7, any::<u16>());
    let writes = prop::collection::btree_map(0..KEYS.len(), value, 0..4);
    let burst = prop::collection::vec((0..KEYS.len(), any::<u16>()), 1..12);
    prop_oneof![
        12 => (guards, writes, any::<bool>()).prop_map(|(g, w, d)| Step::Commit(g, w, d)),
        3 => burst.prop_map(Step::Burst),
        3 => (0..PREFIXES.len(), 0..12u64).prop_map(|(prefix, back)| Step::Watch(prefix, back)),
        3 => (0..20u64).prop_map(Step::Read),
        1 => (0..20u64).prop_map(Step::Compact),
        1 => Just(Step::Restart),
        1 => Just(Step::RotateKey),
    ]
}

type State = BTreeMap<String, (Vec<u8>, u64, u64)>;
type Change = (u64, String, Option<Vec<u8>>, Option<Vec<u8>>);

struct Model {
    /// State after each revision that changed something.
    history: Vec<(u64, State)>,
    changes: Vec<Change>,
    compacted: u64,
}

impl Model {
    fn state(&self) -> &State {
        &self.history.last().unwrap().1
    }

    fn revision(&self) -> u64 {
        self.history.last().unwrap().0
    }

    fn holds(&self, guard: &Guard) -> bool {
        let modified = self.state().get(&*guard.key).map(|(_, _, modified)| *modified);
        match guard.expect {
            Expect::Absent => modified.is_none(),
            Expect::Present => modified.is_some(),
            Expect::Modified(revision) => modified == Some(revision.0),
        }
    }

    fn write(&mut self, revision: u64, writes: &[(&str, Option<Vec<u8>>)]) {
        let mut state = self.state().clone();
        let before = self.changes.len();
        for (key, value) in writes {
            let previous = state.get(*key).cloned();
            let old = previous.as_ref().map(|(value, ..)| value.clone());
            if value.is_none() && old.is_none() {
                continue;
            }
            match value {
                Some(value) => {
                    let created = previous.map_or(revision, |(_, created, _)| created);
                    state.insert((*key).to_owned(), (value.clone(), created, revision));
                }
                None => {
                    state.remove(*key);
                }
            }
            self.changes.push((revision, (*key).to_owned(), old, value.clone()));
        }
        if self.changes.len() > before {
            self.history.push((revision, state));
        }
    }

    fn at(&self, revision: u64) -> &State {
        &self.history.iter().rev().find(|(at, _)| *at <= revision).unwrap().1
    }
}

fn contents(snapshot: &store::Snapshot<usize>) -> State {
    let rows = snapshot.range("").map(|(key, record)| {
        assert_eq!(record.note, record.value.len());
        let row = (record.value.to_vec(), record.created.0, record.modified.0);
        (key.to_string(), row)
    });
    rows.collect()
}

fn change(event: &Arc<Event<usize>>) -> Change {
    let bytes = |record: &Option<Arc<store::Record<usize>>>| {
        record.as_ref().map(|record| record.value.to_vec())
    };
    (event.revision.0, event.key.to_string(), bytes(&event.previous), bytes(&event.current))
}

struct Run {
    options: Options,
    store: Option<Embedded<usize>>,
    model: Model,
    watches: Vec<(&'static str, usize, Watch<usize>)>,
}

impl Run {
    fn store(&self) -> &Embedded<usize> {
        self.store.as_ref().unwrap()
    }

    fn open(options: &Options) -> Embedded<usize> {
        Embedded::open(options.clone(), |_, value| value.len()).unwrap()
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Commit(guards, writes, durable) => self.commit(&guards, &writes, durable).await,
            Step::Burst(writes) => self.burst(&writes).await,
            Step::Watch(prefix, back) => self.watch(PREFIXES[prefix], back),
            Step::Read(back) => self.read(back),
            Step::Compact(back) => {
                let revision = self.model.revision().saturating_sub(back);
                self.store().compact(Revision(revision)).await.unwrap();
                self.model.compacted = self.model.compacted.max(revision);
            }
            Step::Restart => {
                self.check_watches();
                self.watches.clear();
                self.store().close().await;
                self.store = None;
                self.store = Some(Self::open(&self.options));
            }
            Step::RotateKey => self.store().rotate_sealing_key().await.unwrap(),
        }
        let snapshot = self.store().snapshot();
        assert_eq!(snapshot.revision().0, self.model.revision());
        assert_eq!(&contents(&snapshot), self.model.state());
    }

    async fn commit(
        &mut self,
        guards: &[(usize, u8)],
        writes: &BTreeMap<usize, Option<u16>>,
        durable: bool,
    ) {
        let guards: Vec<Guard> = guards
            .iter()
            .map(|(key, kind)| {
                let modified = self.model.state().get(KEYS[*key]).map_or(1, |row| row.2);
                let expect = match kind {
                    0 => Expect::Absent,
                    1 => Expect::Present,
                    2 => Expect::Modified(Revision(modified)),
                    _ => Expect::Modified(Revision(modified - 1)),
                };
                Guard::new(KEYS[*key], expect)
            })
            .collect();
        let wanted: Vec<_> = writes
            .iter()
            .map(|(key, value)| (KEYS[*key], value.map(|number| vec![7; usize::from(number) % 99])))
            .collect();
        let writes = wanted
            .iter()
            .map(|(key, value)| match value {
                Some(value) => Write::put(*key, value.clone().into(), value.len()),
                None => Write::delete(*key),
            })
            .collect();
        let durability = if durable { Durability::Durable } else { Durability::Relaxed };
        let result = self.store().commit(guards.clone(), writes, durability).await;
        match guards.iter().find(|guard| !self.model.holds(guard)) {
            None => {
                let revision = result.unwrap().revision.0;
                self.model.write(revision, &wanted);
                assert_eq!(revision, self.model.revision());
            }
            Some(guard) => match result {
                Err(CommitError::Conflict { key, current }) => {
                    assert_eq!(key, guard.key);
                    let known = self.model.state().get(&*key).map(|row| row.2);
                    assert_eq!(current.map(|record| record.modified.0), known);
                }
                other => panic!("{other:?}"),
            },
        }
    }

    async fn burst(&mut self, writes: &[(usize, u16)]) {
        let pending: Vec<_> = writes
            .iter()
            .map(|(key, value)| {
                let value = vec![1; usize::from(*value) % 999];
                let write = Write::put(KEYS[*key], value.clone().into(), value.len());
                (*key, value, self.store().commit(vec![], vec![write], Durability::Durable))
            })
            .collect();
        for (key, value, commit) in pending {
            let revision = commit.await.unwrap().revision.0;
            self.model.write(revision, &[(KEYS[key], Some(value))]);
        }
    }

    fn watch(&mut self, prefix: &'static str, back: u64) {
        let from = self.model.revision().saturating_sub(back);
        match self.store().watch(prefix, Revision(from)) {
            Ok(watch) => {
                assert!(from >= self.model.compacted);
                let seen = self.model.changes.iter().filter(|change| change.0 <= from).count();
                self.watches.push((prefix, seen, watch));
            }
            Err(WatchError::Compacted { .. }) => assert!(from < self.model.compacted),
            Err(error) => panic!("{error}"),
        }
    }

    fn read(&self, back: u64) {
        let revision = self.model.revision().saturating_sub(back);
        match self.store().at(Revision(revision)) {
            Ok(snapshot) => {
                assert!(revision >= self.model.compacted);
                assert_eq!(&contents(&snapshot), self.model.at(revision));
            }
            Err(ReadError::Compacted { .. }) => assert!(revision < self.model.compacted),
            Err(error) => panic!("{error}"),
        }
    }

    /// Every watch has delivered all changes since it began, and nothing else.
    fn check_watches(&mut self) {
        for (prefix, seen, watch) in &mut self.watches {
            let mut delivered = Vec::new();
            while let Some(event) = watch.try_next().unwrap() {
                delivered.push(change(&event));
            }
            let expected: Vec<_> = self.model.changes[*seen..]
                .iter()
                .filter(|change| change.1.starts_with(*prefix))
                .cloned()
                .collect();
            assert_eq!(delivered, expected, "watch of {prefix}");
            assert_eq!(watch.progress().0, self.model.revision());
            *seen = self.model.changes.len();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let options = Options {
                checkpoint_bytes: 64 << 10,
                unsafe_no_fsync: true,
                ..Options::new(directory.path().join("store"))
                    .seal(directory.path().join("key"), ["/secret/"])
            };
            let store = Run::open(&options);
            let revision = store.snapshot().revision().0;
            let model = Model {
                history: vec![(0, State::new()), (revision, State::new())],
                changes: Vec::new(),
                compacted: 0,
            };
            let mut run = Run { options, store: Some(store), model, watches: Vec::new() };
            for step in steps {
                run.step(step).await;
            }
            run.check_watches();
        });
    }
}
