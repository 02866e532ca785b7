//! Servers and members of etcd that die under a load of writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use testkit::eventually;

use super::{PATIENCE, Shared, kill};

const COUNTER: &str = "counter";

/// What a writer did.
#[derive(Debug, Default)]
struct Done {
    /// Names of objects whose creation was acknowledged.
    created: Vec<String>,
    /// Additions to the counter that were acknowledged.
    added: usize,
    /// Additions whose answer was lost.
    unknown: usize,
}

fn map(name: &str, count: usize) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some([("count".to_owned(), count.to_string())].into()),
        ..ConfigMap::default()
    }
}

fn count(map: &ConfigMap) -> usize {
    map.data.as_ref().and_then(|data| data["count"].parse().ok()).expect("a count")
}

/// Creates objects and counts until told to stop.
async fn write(
    client: Client,
    number: usize,
    stop: Arc<AtomicBool>,
    progress: Arc<AtomicUsize>,
) -> Done {
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let mut done = Done::default();
    let mut round = 0;
    while !stop.load(Ordering::SeqCst) {
        let name = format!("w{number}-{round}");
        round += 1;
        if maps.create(&PostParams::default(), &map(&name, 0)).await.is_ok() {
            done.created.push(name);
        }
        match add_one(&maps).await {
            Ok(true) => {
                done.added += 1;
                progress.fetch_add(1, Ordering::SeqCst);
            }
            Ok(false) => {}
            Err(_) => done.unknown += 1,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    done
}

/// Adds one; whether it was, or an error if that is not known.
async fn add_one(maps: &Api<ConfigMap>) -> Result<bool, kube::Error> {
    let Ok(mut counter) = maps.get(COUNTER).await else { return Ok(false) };
    let next = map("", count(&counter) + 1);
    counter.data = next.data;
    match maps.replace(COUNTER, &PostParams::default(), &counter).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[test]
fn every_acknowledged_write_outlives_servers_and_members() {
    let mut shared = Shared::new(3);
    let (a, b) = (shared.add_ready_server(), shared.add_ready_server());
    shared.kubectl(a, &["create", "configmap", COUNTER, "--from-literal=count=0"]).unwrap();
    let (stop, progress) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writers: Vec<_> = [[a, b], [b, a], [a, b]]
        .into_iter()
        .enumerate()
        .map(|(number, servers)| {
            let (stop, progress) = (stop.clone(), progress.clone());
            shared.with_client(&servers, move |client| write(client, number, stop, progress))
        })
        .collect();
    let go_on = |what: &str| {
        let before = progress.load(Ordering::SeqCst);
        eventually(what, PATIENCE, || progress.load(Ordering::SeqCst) > before + 20);
    };
    go_on("writes happen");
    kill(&mut shared.servers[a].process);
    go_on("clients go on with the other server");
    kill(&mut shared.members[0]);
    go_on("servers go on with two members");
    shared.start_server(a);
    shared.wait_ready(a);
    shared.start_member(0);
    kill(&mut shared.servers[b].process);
    go_on("clients go on with the server that came back");
    stop.store(true, Ordering::SeqCst);
    let done: Vec<Done> = writers.into_iter().map(|w| w.join().expect("a writer")).collect();

    shared.start_server(b);
    shared.wait_ready(b);
    let (added, unknown) = (
        done.iter().map(|done| done.added).sum::<usize>(),
        done.iter().map(|done| done.unknown).sum::<usize>(),
    );
    for server in [a, b] {
        let names = shared.with_client(&[server], |client| async move {
            let maps: Api<ConfigMap> = Api::namespaced(client, "default");
            let all = maps.list(&ListParams::default()).await.expect("listed").items;
            let name = |map: &ConfigMap| map.metadata.name.clone().unwrap_or_default();
            let counter = all.iter().find(|map| name(map) == COUNTER).map(count);
            let names: std::collections::HashSet<String> = all.iter().map(name).collect();
            (counter.expect("the counter"), names)
        });
        let (counter, names) = names.join().expect("a list");
        let lost: Vec<&String> = done
            .iter()
            .flat_map(|done| &done.created)
            .filter(|name| !names.contains(*name))
            .collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        assert!((added..=added + unknown).contains(&counter), "{added} {unknown} {counter}");
    }
    println!("{added} additions acknowledged, {unknown} unknown");
}
