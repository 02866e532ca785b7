//! What the embedded store alone does on this machine: commits a second and
//! latency at several numbers of commits in flight, memory, and the time to
//! open. `cargo run --release --example throughput -- [DIRECTORY]`

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use store::{
    Durability, Embedded, Options, Store, Write,
    load::{Load, create},
};

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| "throughput.store".into());
    std::fs::remove_dir_all(&directory).ok();
    let store = Embedded::open(Options::new(&directory), |_, _| ())?;
    let before = resident();
    let mut pending = Vec::new();
    for number in 0..24_600 {
        let key = format!("/registry/configmaps/default/object-{number:06}");
        let write = Write::put(key, vec![b'x'; 1200].into(), ());
        pending.push(store.commit(vec![], vec![write], Durability::Durable));
    }
    for commit in pending {
        commit.await?;
    }
    println!("24,600 objects of 1.2 KB: {} KiB resident more", resident() - before);
    let snapshot = store.snapshot();
    let begin = Instant::now();
    let bytes: usize =
        snapshot.range("/registry/configmaps/").map(|(_, record)| record.value.len()).sum();
    println!("walk of all: {:?} ({bytes} bytes)", begin.elapsed());
    store.close().await;
    drop((store, snapshot));
    let begin = Instant::now();
    let store = Embedded::open(Options::new(&directory), |_, _| ())?;
    println!(
        "open: {:?}, {} keys, {} KiB resident",
        begin.elapsed(),
        store.stats().keys,
        resident()
    );
    store.close().await;
    std::fs::remove_dir_all(&directory)?;

    let store = Embedded::open(Options::new(&directory), |_, _| ())?;
    for durability in [Durability::Durable, Durability::Relaxed] {
        for in_flight in [1, 8, 64, 256] {
            let load = Load {
                in_flight,
                value_bytes: 1024,
                duration: Duration::from_secs(3),
                durability,
                prefix: format!("/registry/load/{durability:?}/{in_flight}/"),
            };
            let before = store.stats();
            let shared: Arc<dyn Store<()>> = Arc::new(store.clone());
            let figures = create(shared, load, || ()).await?;
            let batches = store.stats().batches - before.batches;
            println!(
                "{durability:?} {in_flight:>4} in flight: {:>8.0}/s, median {:?}, p99 {:?}, {:.1} a batch",
                figures.per_second,
                figures.median,
                figures.p99,
                figures.commits as f64 / batches as f64,
            );
        }
    }
    store.close().await;
    drop(store);
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}
