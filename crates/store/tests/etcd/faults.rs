//! Members that die, answers that are lost, history that is compacted too soon:
//! no acknowledged write is lost, and nobody is told of a conflict that was none.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use store::{CommitError, Durability, Etcd, EtcdOptions, Expect, Guard, Store, WatchError, Write};

use crate::{
    cluster::{Cluster, open},
    commit,
    proxy::Proxy,
    suite::{Note, put},
};

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(240), async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

/// Adds one to a counter that others count too; what a lost or repeated write
/// would show in.
async fn add_one(store: &Etcd<Note>) -> Result<(), CommitError<Note>> {
    loop {
        let snapshot = match store.latest().await {
            Ok(snapshot) => snapshot,
            Err(error) => return Err(CommitError::Io(error.to_string())),
        };
        let record = snapshot.get("/counter").unwrap();
        let count: u64 = std::str::from_utf8(&record.value).unwrap().parse().unwrap();
        let guard = Guard::new("/counter", Expect::Modified(record.modified));
        let write = put("/counter", &(count + 1).to_string());
        match store.commit(vec![guard], vec![write], Durability::Durable).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

async fn counted(store: &Etcd<Note>) -> u64 {
    let snapshot = store.latest().await.unwrap();
    std::str::from_utf8(&snapshot.get("/counter").unwrap().value).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_the_death_of_members() {
    let mut cluster = Cluster::start(3);
    let stores = [cluster.open("a").await, cluster.open("b").await];
    commit(&stores[0], put("/counter", "0")).await;
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (store, done, stop) = (stores[number % 2].clone(), done.clone(), stop.clone());
        writers.spawn(async move {
            let mut round = 0;
            while !stop.load(Ordering::SeqCst) {
                add_one(&store).await.unwrap();
                commit(&store, put(&format!("/log/{number}/{round:05}"), "x")).await;
                round += 1;
                done.fetch_add(1, Ordering::SeqCst);
            }
            round
        });
    }
    for member in [0, 1, 2] {
        let before = done.load(Ordering::SeqCst);
        let progress = || async { done.load(Ordering::SeqCst) > before + 100 };
        eventually("writes go on", progress).await;
        cluster.kill(member);
        let before = done.load(Ordering::SeqCst);
        eventually("writes go on without a member", async || {
            done.load(Ordering::SeqCst) > before + 100
        })
        .await;
        cluster.restart(member);
    }
    stop.store(true, Ordering::SeqCst);
    let rounds: Vec<usize> = writers.join_all().await;
    let total: usize = rounds.iter().sum();
    for store in &stores {
        assert_eq!(counted(store).await, total as u64);
        let snapshot = store.latest().await.unwrap();
        assert_eq!(snapshot.range("/log/").count(), total);
    }
    // A third server reads the same from etcd itself.
    let third = cluster.open("c").await;
    assert_eq!((counted(&third).await, third.snapshot().len()), (total as u64, total + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_are_neither_lost_writes_nor_conflicts() {
    let cluster = Cluster::start(1);
    let proxy = Arc::new(Proxy::start(&cluster.listener(0)).await);
    let through = [format!("https://{}", proxy.address)];
    let options = EtcdOptions { endpoints: through.into(), ..cluster.options("a") };
    let store = open(options).await.unwrap();
    commit(&store, put("/counter", "0")).await;
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let cutter = tokio::spawn({
        let (done, stop, proxy) = (done.clone(), stop.clone(), proxy.clone());
        async move {
            let mut cuts = 0;
            loop {
                let next = done.load(Ordering::SeqCst) + rand::random_range(1..20);
                while done.load(Ordering::SeqCst) < next {
                    if stop.load(Ordering::SeqCst) {
                        return cuts;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                proxy.cut();
                cuts += 1;
            }
        }
    });
    // One writer a key, so that no conflict is true; all share the counter.
    const ROUNDS: u64 = 40;
    let writers = (0..6).map(|number| {
        let (store, done) = (store.clone(), done.clone());
        async move {
            let key = format!("/own/{number}");
            let mut expect = Expect::Absent;
            for round in 0..ROUNDS {
                let guard = vec![Guard::new(key.as_str(), expect)];
                let deletes = round % 4 == 3;
                let write = if deletes {
                    Write::delete(key.as_str())
                } else {
                    put(&key, &round.to_string())
                };
                let made = store.commit(guard, vec![write], Durability::Durable).await.unwrap();
                expect = if deletes { Expect::Absent } else { Expect::Modified(made.revision) };
                add_one(&store).await.unwrap();
                done.fetch_add(2, Ordering::SeqCst);
            }
        }
    });
    futures::future::join_all(writers).await;
    stop.store(true, Ordering::SeqCst);
    assert!(cutter.await.unwrap() > 10);
    assert_eq!(counted(&store).await, 6 * ROUNDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_missed_compacted_changes_reads_everything_again() {
    let cluster = Cluster::start(1);
    let proxy = Proxy::start(&cluster.listener(0)).await;
    let a = cluster.open("a").await;
    let through = [format!("https://{}", proxy.address)];
    let b = open(EtcdOptions { endpoints: through.into(), ..cluster.options("b") }).await.unwrap();
    commit(&a, put("/stays", "1")).await;
    let from = commit(&a, put("/goes", "1")).await;
    b.at_least(from).await.unwrap();
    let mut watch = b.watch("/", from).unwrap();

    proxy.close(true);
    commit(&a, Write::delete("/goes")).await;
    let last = commit(&a, put("/stays", "2")).await;
    a.compact(last).await.unwrap();
    proxy.close(false);

    let snapshot = b.latest().await.unwrap();
    assert!(snapshot.revision() >= last && snapshot.get("/goes").is_none());
    assert_eq!(&snapshot.get("/stays").unwrap().value[..], b"2");
    assert_eq!(watch.next().await.unwrap_err(), WatchError::Lagged);
    assert!(matches!(b.watch("/", from), Err(WatchError::Compacted { .. })));
    let next = commit(&b, put("/stays", "3")).await;
    assert_eq!(b.watch("/", last).unwrap().next().await.unwrap().revision, next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_compact_in_turn() {
    let cluster = Cluster::start(1);
    let often = |name: &str| EtcdOptions {
        compact_every: Duration::from_millis(200),
        ..cluster.options(name)
    };
    let a = open(often("a")).await.unwrap();
    let _b = open(often("b")).await.unwrap();
    let old = commit(&a, put("/x", "1")).await;
    // A server that starts cannot read what is forgotten: its past begins later.
    eventually("etcd forgets", async || {
        commit(&a, put("/x", "2")).await;
        let third = cluster.open("c").await;
        matches!(third.watch("/", old), Err(WatchError::Compacted { .. }))
    })
    .await;
    assert_eq!(&a.latest().await.unwrap().get("/x").unwrap().value[..], b"2");
}
