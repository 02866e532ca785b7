//! Requests of the kinds a cluster sees, against the default objects.

use super::*;
use crate::{bootstrap::flow as defaults, identity};

fn flow(options: FlowOptions) -> Flow {
    let flow = Flow::new(options, defaults::mandatory());
    flow.load(defaults::all());
    flow
}

fn ask<'a>(verb: &'a str, resource: &'a str, namespace: &'a str) -> Attributes<'a> {
    let (group, resource) = resource.rsplit_once('.').unwrap_or(("", resource));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        verb,
        group,
        resource,
        subresource,
        namespace,
        resource_request: true,
        ..Attributes::default()
    }
}

fn check(user: &UserInfo, request: &Attributes<'_>, schema: &str, level: &str) {
    let flow = flow(FlowOptions::default());
    let found = flow.classify(user, request).expect("a schema");
    let names = (found.stored.metadata.name.as_str(), found.lane.name.as_str());
    assert_eq!(names, (schema, level), "{user:?} {request:?}");
}

#[test]
fn requests_find_their_schemas() {
    let admin = identity::authenticated("admin", ["system:masters"]);
    let jane = identity::authenticated("jane", ["team"]);
    let node = identity::authenticated("system:node:a", ["system:nodes"]);
    let network = identity::authenticated("skiff:network:a", ["skiff:network"]);
    let manager = identity::authenticated("system:kube-controller-manager", [""; 0]);
    let pods = ask("list", "pods", "default");
    check(&admin, &pods, "exempt", "exempt");
    check(&jane, &pods, "global-default", "global-default");
    check(&node, &ask("update", "nodes/status", ""), "system-node-high", "node-high");
    check(
        &node,
        &ask("get", "coordination.k8s.io.leases", "kube-node-lease"),
        "system-node-high",
        "node-high",
    );
    check(&node, &pods, "system-nodes", "system");
    check(&network, &pods, "skiff-network", "system");
    check(&manager, &pods, "kube-controller-manager", "workload-high");
    let lease = ask("update", "coordination.k8s.io.leases", "kube-system");
    check(&manager, &lease, "system-leader-election", "leader-election");
    let robot = identity::service_account("kube-system", "robot", "");
    check(&robot, &lease, "system-leader-election", "leader-election");
    check(&robot, &pods, "kube-system-service-accounts", "workload-high");
    check(
        &identity::service_account("default", "web", ""),
        &pods,
        "service-accounts",
        "workload-low",
    );
    let path = |path| Attributes { verb: "get", path, ..Attributes::default() };
    check(&identity::anonymous(), &path("/readyz"), "probes", "exempt");
    check(&identity::anonymous(), &path("/livez/ping"), "probes", "exempt");
    check(&identity::anonymous(), &path("/livezoo"), "global-default", "global-default");
}

#[tokio::test(start_paused = true)]
async fn a_crowd_is_refused_and_others_are_not() {
    let flow =
        Arc::new(flow(FlowOptions { max_reads: 20, max_writes: 10, ..FlowOptions::default() }));
    let schema = {
        let crowd = identity::authenticated("crowd", [""; 0]);
        flow.classify(&crowd, &ask("get", "pods", "default")).expect("a schema")
    };
    let enter = |user: &'static str| {
        let (flow, schema) = (flow.clone(), schema.clone());
        async move {
            let (user, query) = (identity::authenticated(user, [""; 0]), Query::default());
            let request = ask("get", "pods", "default");
            let limit = Duration::from_secs(60);
            flow.enter(&schema, &user, &request, (&query, None), limit).await
        }
    };
    let (seats, _) = schema.lane.level.seats();
    let mut places = Vec::new();
    for _ in 0..seats {
        places.push(enter("crowd").await.expect("a seat"));
    }
    // What nobody leaves is waited for until the time is over: a quarter of the request's.
    let began = tokio::time::Instant::now();
    assert_eq!(enter("crowd").await.err(), Some(1));
    assert_eq!(began.elapsed(), Duration::from_secs(15));
    // A hand of six queues with fifty places each.
    let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
    let spawn = |user: &'static str| {
        let (enter, sender) = (enter(user), sender.clone());
        tokio::spawn(async move {
            let place = enter.await.expect("a seat");
            sender.send(user).expect("somebody listens");
            tokio::task::yield_now().await;
            drop(place);
        })
    };
    let waits = async |count: usize| {
        let wanted = format!(
            "current_inqueue_requests{{flow_schema=\"global-default\",priority_level=\"global-default\"}} {count}\n"
        );
        let mut text = String::new();
        while !text.contains(&wanted) {
            tokio::task::yield_now().await;
            text.clear();
            flow.write(&mut text);
        }
    };
    (0..300).for_each(|_| drop(spawn("crowd")));
    waits(300).await;
    assert!(enter("crowd").await.is_err(), "the queues are full");
    spawn("mouse");
    waits(301).await;
    let dump = |what: &str| flow.dump(what, true).expect("a dump");
    let rows = |what: &str| -> Vec<Vec<String>> {
        let cells = |line: &str| -> Vec<String> {
            line.split(',').map(|cell| cell.trim().to_owned()).collect()
        };
        dump(what).lines().map(cells).filter(|row| row[0] == "global-default").collect()
    };
    let level = rows("dump_priority_levels").remove(0);
    let seats = seats.to_string();
    // Waiting, executing, served, refused, timed out, gone.
    assert_eq!(
        level[2..],
        ["false", "false", "301", seats.as_str(), seats.as_str(), "1", "1", "0"]
    );
    let pending =
        rows("dump_queues").iter().map(|row| row[2].parse::<u32>().expect("a number")).sum::<u32>();
    assert_eq!((pending, rows("dump_requests").len()), (301_u32, 301));
    let mouse = rows("dump_requests").into_iter().find(|row| row[4] == "mouse").expect("waits");
    assert_eq!(mouse[10..], ["mouse", "get", "", "default", "", "", "pods", ""]);
    assert!(flow.dump("dump_all", false).is_none());
    drop(places);
    let mut before = 0;
    while order.recv().await.expect("all are served") != "mouse" {
        before += 1;
    }
    assert!(before < 20, "{before} came before it");
    let mut text = String::new();
    flow.write(&mut text);
    let labels = "flow_schema=\"global-default\",priority_level=\"global-default\"";
    let rejected = "apiserver_flowcontrol_rejected_requests_total";
    assert!(text.contains(&format!("{rejected}{{{labels},reason=\"queue-full\"}} 1\n")), "{text}");
    assert!(text.contains(&format!("{rejected}{{{labels},reason=\"time-out\"}} 1\n")), "{text}");
}

#[test]
fn a_schema_that_leads_nowhere_is_passed_over() {
    let flow = Flow::new(FlowOptions::default(), defaults::mandatory());
    let mut objects = defaults::all();
    let lost = objects.iter_mut().find(|object| object["metadata"]["name"] == "global-default");
    lost.expect("there")["spec"]["priorityLevelConfiguration"]["name"] = "nowhere".into();
    flow.load(objects);
    let jane = identity::authenticated("jane", [""; 0]);
    let found = flow.classify(&jane, &ask("list", "pods", "")).expect("a schema");
    assert_eq!(found.stored.metadata.name, "catch-all");
}
