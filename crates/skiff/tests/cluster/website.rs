//! The story of the README: a website goes from 1.0.0 to 1.1.0 under load, a broken 1.2.0 reaches
//! nobody, the undo and a scale up and down cost no request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use testkit::load::{Load, LoadOptions, Report};
use testkit::{Cluster, eventually, website_images};

const MANY: usize = 20_000;
const WORKERS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(240);

fn example(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("crates/skiff is two levels deep");
    let path: PathBuf = root.join("examples/website").join(file);
    path.to_str().expect("the path is UTF-8").to_owned()
}

fn rollout(cluster: &Cluster) {
    cluster.kubectl(&["rollout", "status", "deploy/website", "--timeout=200s"]);
}

/// Waits until no pod with the label is left, not even one that is terminating.
fn pods_gone(cluster: &Cluster, label: &str) {
    eventually("old pods to be gone", PATIENCE, || {
        cluster
            .try_kubectl(&["get", "pods", "-l", label, "-o", "name"])
            .is_ok_and(|pods| pods.is_empty())
    });
}

/// The version and the pod in an answer: `website 1.0.0 from website-abc`.
fn parse(body: &str) -> (&str, &str) {
    let mut words = body.lines().next().unwrap_or_default().split(' ');
    assert_eq!(words.next(), Some("website"), "{body}");
    let version = words.next().expect("a version");
    (version, words.nth(1).expect("a pod"))
}

fn versions(report: &Report) -> Vec<&str> {
    let mut versions: Vec<&str> =
        report.answers.iter().map(|answer| parse(&answer.body).0).collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}

/// How many workers there are, and how they are spread, is fixed; how long they run is up to the story.
fn load(cluster: &Cluster) -> Load {
    let service = cluster.kubectl(&[
        "get",
        "service",
        "website",
        "-o",
        "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}",
    ]);
    let targets = [service.as_str(), "127.0.0.1:30080", "10.77.0.2:30080"];
    let options = LoadOptions {
        targets: targets.iter().map(|target| target.parse().expect("an address")).collect(),
        path: "/".into(),
        fresh: WORKERS / 2,
        kept: WORKERS / 2,
        pause: Duration::from_millis(8),
    };
    Load::start(cluster.namespace(), &options)
}

#[test]
fn a_website_is_updated_without_a_failed_request() {
    let cluster = Cluster::start(crate::SKIFF);
    cluster.import(&website_images());
    assert!(cluster.kubectl(&["get", "nodes"]).contains("Ready"));

    cluster.kubectl(&["apply", "-f", &example("1.0.0.yaml")]);
    rollout(&cluster);
    let load = load(&cluster);
    let reached =
        |count: usize| eventually("the load to go on", PATIENCE, || load.count() >= count);
    reached(1_000);

    cluster.kubectl(&["apply", "-f", &example("1.1.0.yaml")]);
    rollout(&cluster);
    pods_gone(&cluster, "app.kubernetes.io/version=1.0.0");
    let old_gone = load.count();
    reached(old_gone + 1_000);

    cluster.kubectl(&["apply", "-f", &example("1.2.0.yaml")]);
    eventually("the broken version to be restarted", PATIENCE, || {
        cluster
            .try_kubectl(&[
                "get",
                "pods",
                "-l",
                "app.kubernetes.io/name=website",
                "-o",
                "jsonpath={.items[*].status.containerStatuses[*].restartCount}",
            ])
            .is_ok_and(|counts| {
                counts.split(' ').any(|count| count.parse().is_ok_and(|n: u32| n > 0))
            })
    });
    let available = cluster.kubectl(&[
        "get",
        "deploy",
        "website",
        "-o",
        "jsonpath={.status.availableReplicas}",
    ]);
    assert!(
        available.parse().is_ok_and(|n: u32| n >= 3),
        "{available} available while 1.2.0 fails"
    );
    cluster.kubectl(&["rollout", "undo", "deploy/website"]);
    rollout(&cluster);

    cluster.kubectl(&["scale", "deploy/website", "--replicas=10"]);
    rollout(&cluster);
    cluster.kubectl(&["scale", "deploy/website", "--replicas=2"]);
    eventually("the pods to be gone", PATIENCE, || {
        cluster
            .try_kubectl(&["get", "pods", "-l", "app.kubernetes.io/name=website", "-o", "name"])
            .is_ok_and(|pods| pods.lines().count() == 2)
    });
    eventually("enough requests of both kinds", 3 * PATIENCE, || {
        load.fresh() >= MANY / 2 && load.kept() >= MANY / 2
    });

    let report = load.finish();
    println!(
        "{} requests on new connections, {} on kept ones, {} retries",
        report.fresh, report.kept, report.retries
    );
    assert!(
        report.failures.is_empty(),
        "{} failed: {:#?}",
        report.failures.len(),
        &report.failures[..report.failures.len().min(10)]
    );
    assert!(report.answers.len() >= MANY, "{} answers", report.answers.len());
    assert!(report.fresh >= MANY / 2 && report.kept >= MANY / 2);
    assert_eq!(versions(&report), ["1.0.0", "1.1.0"], "the broken version must reach nobody");
    let last_old = report
        .answers
        .iter()
        .rposition(|answer| parse(&answer.body).0 == "1.0.0")
        .expect("1.0.0 was seen");
    // Each worker may have held one answer that was not counted yet.
    assert!(last_old <= old_gone + WORKERS, "1.0.0 answered after its rollout was over");
}
