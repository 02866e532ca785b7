//! Servers at work at the same time: nothing is given out twice, one leads, and the cluster knows where
//! they are.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::IPAddress;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use testkit::eventually;

use super::{PATIENCE, Shared, kill};

/// Services each server is asked for.
const EACH: usize = 60;

async fn create_services(client: Client, prefix: &'static str) -> Vec<Service> {
    let services: Api<Service> = Api::namespaced(client, "default");
    let create = |number: usize| {
        let service = Service {
            metadata: ObjectMeta {
                name: Some(format!("{prefix}{number}")),
                ..ObjectMeta::default()
            },
            spec: Some(ServiceSpec {
                type_: Some("NodePort".into()),
                ports: Some(vec![ServicePort { port: 80, ..ServicePort::default() }]),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        };
        let services = services.clone();
        async move { services.create(&PostParams::default(), &service).await.expect("created") }
    };
    // Eight at a time.
    let mut made = Vec::new();
    for batch in (0..EACH).collect::<Vec<_>>().chunks(8) {
        let mut tasks = tokio::task::JoinSet::new();
        batch.iter().for_each(|number| drop(tasks.spawn(create(*number))));
        made.extend(tasks.join_all().await);
    }
    made
}

#[test]
fn no_address_and_no_port_is_given_out_twice() {
    let mut shared = Shared::new(1);
    let (a, b) = (shared.add_ready_server(), shared.add_ready_server());
    let one = shared.with_client(&[a], |client| create_services(client, "a"));
    let two = shared.with_client(&[b], |client| create_services(client, "b"));
    let mut made = one.join().expect("created through one server");
    made.extend(two.join().expect("created through the other"));
    let spec = |service: &Service| service.spec.clone().expect("a spec");
    let addresses: HashSet<String> = made.iter().filter_map(|s| spec(s).cluster_ip).collect();
    let ports: HashSet<i32> =
        made.iter().filter_map(|s| spec(s).ports.expect("ports")[0].node_port).collect();
    assert_eq!((addresses.len(), ports.len()), (2 * EACH, 2 * EACH));

    // Both see an IPAddress for each, and none when the Services are gone.
    let known = |server| {
        let names = shared.with_client(&[server], |client| async move {
            let all = Api::<IPAddress>::all(client).list(&ListParams::default()).await;
            all.expect("listed").items.into_iter().filter_map(|a| a.metadata.name).collect()
        });
        names.join().expect("a list")
    };
    for server in [a, b] {
        let known: HashSet<String> = known(server);
        assert!(addresses.is_subset(&known), "{:?}", addresses.difference(&known));
    }
    shared.kubectl(b, &["delete", "service", "--all", "--wait=false"]).unwrap();
    let left: HashSet<String> = known(a);
    assert!(addresses.is_disjoint(&left), "{left:?}");
}

#[test]
fn one_leads_and_another_takes_over() {
    let mut shared = Shared::new(1);
    let (a, b) = (shared.add_ready_server(), shared.add_ready_server());
    let address = |index: usize| shared.servers[index].machine.address().to_string();
    let (first, second) = (address(a), address(b));
    let holder = |server: usize, lease: &str| {
        let path = "jsonpath={.spec.holderIdentity}";
        shared.kubectl(server, &["get", "lease", "-n", "kube-system", lease, "-o", path])
    };
    let leases = ["kube-controller-manager", "kube-scheduler"];
    eventually("somebody leads", PATIENCE, || {
        leases.iter().all(|lease| holder(a, lease).is_ok_and(|holder| !holder.is_empty()))
    });
    let path = "jsonpath={.subsets[*].addresses[*].ip}";
    let endpoints =
        |server| shared.kubectl(server, &["get", "endpoints", "kubernetes", "-o", path]);
    let both = format!("{first} {second}");
    eventually("both are endpoints", PATIENCE, || endpoints(a).is_ok_and(|all| all == both));

    // The first to start leads. It is asked to stop, and says so to everybody.
    assert_eq!(holder(b, leases[0]).unwrap(), format!("{first}:6443"));
    let pid = shared.servers[a].process.as_ref().unwrap().id();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.cast_signed()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    let ended = shared.servers[a].process.take().unwrap().wait().unwrap();
    assert!(ended.success(), "{ended}");
    assert_eq!(endpoints_of(&shared, b), second, "one that stops takes its address away");
    let new_leader = format!("{second}:6443");
    for lease in leases {
        eventually("the other leads", PATIENCE, || {
            holder_of(&shared, b, lease).is_ok_and(|holder| holder == new_leader)
        });
    }
    shared.kubectl(b, &["create", "deployment", "web", "--image=none"]).unwrap();
    eventually("controllers work there", PATIENCE, || {
        shared.kubectl(b, &["get", "pods", "-o", "name"]).is_ok_and(|pods| pods.contains("web-"))
    });

    // It comes back, the leader dies without a word: leadership and endpoints come to the survivor.
    shared.start_server(a);
    shared.wait_ready(a);
    eventually("both are endpoints again", PATIENCE, || endpoints_of(&shared, b) == both);
    kill(&mut shared.servers[b].process);
    eventually("the dead server's address goes", PATIENCE, || endpoints_of(&shared, a) == first);
    eventually("the survivor leads", PATIENCE, || {
        leases.iter().all(|lease| {
            holder_of(&shared, a, lease).is_ok_and(|holder| holder == format!("{first}:6443"))
        })
    });
}

fn endpoints_of(shared: &Shared, server: usize) -> String {
    let path = "jsonpath={.subsets[*].addresses[*].ip}";
    shared.kubectl(server, &["get", "endpoints", "kubernetes", "-o", path]).unwrap_or_default()
}

fn holder_of(shared: &Shared, server: usize, lease: &str) -> Result<String, String> {
    let path = "jsonpath={.spec.holderIdentity}";
    shared.kubectl(server, &["get", "lease", "-n", "kube-system", lease, "-o", path])
}
