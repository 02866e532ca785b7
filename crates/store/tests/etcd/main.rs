//! The etcd backend: the suite on one member and on three, and what only a
//! store on other machines can do wrong.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod faults;
mod proxy;
#[path = "../suite/mod.rs"]
mod suite;

use std::fs;

use store::{
    Durability, Etcd, EtcdOptions, Expect, Guard, OpenError, ReadError, Revision, SealError,
    SharedRecords, Store, WatchError, Write,
};

use cluster::{Cluster, open};
use suite::{Note, put};

async fn fresh(members: usize) -> (Cluster, Etcd<Note>) {
    let cluster = Cluster::start(members);
    let store = cluster.open("alone").await;
    (cluster, store)
}

mod one_member {
    use super::{fresh, suite};
    use crate::store_suite;
    store_suite!(fresh(1).await);
}

mod three_members {
    use super::{fresh, suite};
    use crate::store_suite;
    store_suite!(fresh(3).await);
}

async fn commit(store: &Etcd<Note>, write: Write<Note>) -> Revision {
    store.commit(vec![], vec![write], Durability::Durable).await.unwrap().revision
}

fn contents(store: &Etcd<Note>) -> Vec<(String, Vec<u8>, u64, u64)> {
    let snapshot = store.snapshot();
    let rows = snapshot.range("").map(|(key, record)| {
        (key.to_string(), record.value.to_vec(), record.created.0, record.modified.0)
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_see_each_others_writes() {
    let cluster = Cluster::start(1);
    let (a, b) = (cluster.open("a").await, cluster.open("b").await);
    let from = commit(&a, put("/x", "1")).await;
    let seen = b.latest().await.unwrap();
    assert_eq!(&seen.get("/x").unwrap().value[..], b"1");
    let mut watch = b.watch("/", from).unwrap();
    let guard = vec![Guard::new("/x", Expect::Modified(from))];
    let done = b.commit(guard, vec![put("/x", "2")], Durability::Durable).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, done.revision);
    assert_eq!(&a.latest().await.unwrap().get("/x").unwrap().value[..], b"2");
    let stale = vec![Guard::new("/x", Expect::Modified(from))];
    assert!(a.commit(stale, vec![Write::delete("/x")], Durability::Durable).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_a_restart() {
    let cluster = Cluster::start(1);
    let store = cluster.open("a").await;
    let mut last = Revision(0);
    for round in 0..700 {
        last = commit(&store, put(&format!("/key/{:03}", round % 600), &round.to_string())).await;
    }
    commit(&store, Write::delete("/key/001")).await;
    let before = contents(&store);
    store.close().await;
    assert!(matches!(store.watch("/", last), Err(WatchError::Closed)));
    assert_eq!(store.latest().await.unwrap_err(), ReadError::Closed);

    let store = cluster.open("a").await;
    assert_eq!((before.len(), contents(&store)), (599, before));
    let mut watch = store.watch("/", last).unwrap();
    let event = watch.next().await.unwrap();
    assert_eq!((&*event.key, event.current.is_none()), ("/key/001", true));
    assert_eq!(&event.previous.as_ref().unwrap().value[..], b"601");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_values_are_sealed_in_etcd_and_open_with_the_same_key_only() {
    let cluster = Cluster::start(1);
    let key_file = cluster.directory().join("sealing.key");
    let options = |name: &str, key_file: &std::path::Path| {
        let seal = store::SealOptions {
            key_file: key_file.to_owned(),
            prefixes: vec!["/secrets/".into()],
        };
        EtcdOptions { seal: Some(seal), ..cluster.options(name) }
    };
    let a = open(options("a", &key_file)).await.unwrap();
    commit(&a, put("/secrets/s", "hunter2-hunter2")).await;
    commit(&a, put("/plain/p", "visible-visible")).await;
    let b = open(options("b", &key_file)).await.unwrap();
    assert_eq!(&b.snapshot().get("/secrets/s").unwrap().value[..], b"hunter2-hunter2");

    let other = open(options("c", &cluster.directory().join("other.key"))).await.err().unwrap();
    assert!(matches!(other, OpenError::Seal(SealError::Missing { .. })), "{other}");
    fs::copy(&key_file, cluster.directory().join("copy.key")).unwrap();
    assert!(open(options("d", &cluster.directory().join("copy.key"))).await.is_ok());
    drop((a, b));

    // What is on etcd's disk shows the one and not the other.
    let mut found = (false, false);
    let mut directories = vec![cluster.directory().join("m0")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let bytes = fs::read(path).unwrap();
            let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
            found = (found.0 || holds(b"hunter2"), found.1 || holds(b"visible-visible"));
        }
    }
    assert_eq!(found, (false, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_agree_on_shared_records() {
    let cluster = Cluster::start(1);
    let records: Vec<_> =
        ["a", "b", "c"].map(|name| SharedRecords::connect(&cluster.options(name)).unwrap()).into();
    assert_eq!(records[0].get("keys").await.unwrap(), None);
    let written = records.iter().enumerate().map(|(index, records)| {
        records.get_or_create("keys", vec![u8::try_from(index).unwrap()].into())
    });
    let written = futures::future::try_join_all(written).await.unwrap();
    assert!(written.windows(2).all(|pair| pair[0] == pair[1]), "{written:?}");
    let store = cluster.open("a").await;
    assert!(store.snapshot().is_empty(), "it is no part of the store");
}

#[tokio::test]
async fn unusable_endpoints_are_named() {
    let refused = |endpoint: &str| open(EtcdOptions::new([endpoint], "a"));
    for endpoint in ["127.0.0.1:2379", "ftp://x:1", "https://127.0.0.1:1", "http://a b"] {
        let error = refused(endpoint).await.err().unwrap();
        assert!(error.to_string().contains(endpoint), "{error}");
    }
    let mut options = EtcdOptions::new(["http://127.0.0.1:1"], "a");
    options.patience = std::time::Duration::from_millis(100);
    let error = open(options).await.err().unwrap();
    assert!(matches!(error, OpenError::Unreachable(_)), "{error}");
    assert!(error.to_string().contains("Connection refused"), "{error}");
}
