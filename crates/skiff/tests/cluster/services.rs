//! Services as programs in and outside pods meet them: addresses, ports, names, endpoints.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Duration;

use testkit::{Cluster, eventually_ok, website_images};

use crate::tool::{PATIENCE, Tool, get};

#[test]
fn services_are_found_and_reached() {
    let cluster = Cluster::start(crate::SKIFF);
    cluster.import(&website_images());
    let tool = Tool::new(&cluster, "services");
    tool.ok("create namespace services");
    tool.apply(include_str!("services.yaml"));
    tool.ok("rollout status deploy/web --timeout=200s");
    tool.ready("pod/client pod/udp");
    tool.until("get endpoints headless -o jsonpath={.subsets[*].addresses[*].ip}", &[], |out| {
        !out.is_empty()
    });
    names(&tool);
    endpoints(&tool);
    addresses(&tool);
    affinity(&tool);
    nobody(&tool);
    by_hand(&tool);
    datagrams(&tool);
    api(&tool);
    changes(&tool);
}

fn cluster_ip(tool: &Tool<'_>, service: &str) -> String {
    tool.field(&format!("service/{service}"), "{.spec.clusterIP}")
}

fn resolve(tool: &Tool<'_>, name: &str, kind: &str) -> BTreeSet<String> {
    let out = tool.inside("client", &["resolve", name, kind]);
    out.lines().map(str::to_owned).collect()
}

fn reversed(address: &str) -> String {
    let parts: Vec<&str> = address.rsplit('.').collect();
    format!("{}.in-addr.arpa", parts.join("."))
}

fn names(tool: &Tool<'_>) {
    let one = |text: &str| BTreeSet::from([text.to_owned()]);
    let web = cluster_ip(tool, "web");
    for name in ["web", "web.services", "web.services.svc", "web.services.svc.cluster.local."] {
        assert_eq!(resolve(tool, name, "A"), one(&web), "{name}");
    }
    assert_eq!(resolve(tool, "kubernetes.default", "A"), one("10.96.0.1"));
    assert_eq!(
        resolve(tool, "_http._tcp.web", "SRV"),
        one("0 100 80 web.services.svc.cluster.local.")
    );
    assert_eq!(resolve(tool, &reversed(&web), "PTR"), one("web.services.svc.cluster.local."));
    let pod = tool.field("pod/named", "{.status.podIP}");
    assert_eq!(resolve(tool, "headless", "A"), one(&pod));
    assert_eq!(resolve(tool, "first.headless", "A"), one(&pod));
    let name = "first.headless.services.svc.cluster.local.";
    assert_eq!(resolve(tool, "_http._tcp.headless", "SRV"), one(&format!("0 100 8080 {name}")));
    assert_eq!(resolve(tool, &reversed(&pod), "PTR"), one(name));
    let dashed = format!("{}.services.pod.cluster.local", pod.replace('.', "-"));
    assert_eq!(resolve(tool, &dashed, "A"), one(&pod));
    assert_eq!(resolve(tool, "alias", "CNAME"), one("web.services.svc.cluster.local."));
    assert_eq!(resolve(tool, "alias", "A"), one(&web), "the name is followed");
    let missing =
        tool.run("exec client -- /testapp resolve nosuch.services.svc.cluster.local.", &[], "");
    assert_eq!((missing.code, missing.out.as_str()), (Some(1), ""), "{missing:?}");
}

fn endpoints(tool: &Tool<'_>) {
    let pods = |selector: &str| -> BTreeSet<String> {
        let line = format!("get pods -l {selector} -o jsonpath={{.items[*].status.podIP}}");
        tool.ok(&line).split(' ').map(str::to_owned).collect()
    };
    let web = pods("app=web");
    let of_slices = tool.ok(
        "get endpointslices -l kubernetes.io/service-name=web -o jsonpath={.items[*].endpoints[*].addresses[*]}",
    );
    assert_eq!(of_slices.split(' ').map(str::to_owned).collect::<BTreeSet<_>>(), web);
    let slice = tool.ok("get endpointslices -l kubernetes.io/service-name=web -o yaml");
    for word in [
        "addressType: IPv4",
        "endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io",
        "tier: front",
        "ready: true",
        "serving: true",
        "terminating: false",
        "kind: Pod",
        "name: http",
        "port: 8080",
    ] {
        assert!(slice.contains(word), "no {word:?} in\n{slice}");
    }
    let addresses = tool.field("endpoints/web", "{.subsets[0].addresses[*].ip}");
    assert_eq!(addresses.split(' ').map(str::to_owned).collect::<BTreeSet<_>>(), web);
    let unready = tool.field("endpoints/unready", "{.subsets[0].notReadyAddresses[*].ip}");
    assert_eq!(BTreeSet::from([unready]), pods("app=named"));
    let conditions = tool.ok(
        "get endpointslices -l kubernetes.io/service-name=headless -o jsonpath={.items[0].endpoints[0].conditions}",
    );
    assert_eq!(conditions, r#"{"ready":true,"serving":false,"terminating":false}"#);
    assert_eq!(
        tool.field("endpoints/kubernetes -n default", "{.subsets[0].ports[0].port}"),
        "6443"
    );
}

fn addresses(tool: &Tool<'_>) {
    let port = tool.field("service/node", "{.spec.ports[0].nodePort}");
    let node = tool.field("pod/client", "{.status.hostIP}");
    let web = cluster_ip(tool, "web");
    for address in [format!("{web}:80"), format!("127.0.0.1:{port}"), format!("{node}:{port}")] {
        let mut hosts = BTreeSet::new();
        eventually_ok(&format!("both pods to answer at {address}"), PATIENCE, || {
            hosts.insert(get(tool.cluster, &format!("http://{address}/hostname"))?);
            if hosts.len() == 2 { Ok(()) } else { Err(format!("{hosts:?}")) }
        });
    }
    for address in ["web", "web.services:80", "alias", &format!("{node}:{port}"), "headless:8080"] {
        let version = tool.inside("client", &["get", &format!("http://{address}/version")]);
        assert_eq!(version, "1.0.0\n", "{address}");
    }
    // A pod reaches itself through its own Service, and sees the client's address.
    let seen = tool.inside("client", &["get", "http://web/clientip"]);
    let own = tool.field("pod/client", "{.status.podIP}");
    assert!(seen.contains(&own), "{seen} is not {own}");
    for _ in 0..4 {
        assert_eq!(tool.inside("deploy/web", &["get", "http://web/version"]), "1.0.0\n");
    }
}

fn affinity(tool: &Tool<'_>) {
    let ask = || tool.inside("client", &["get", "http://sticky/hostname"]);
    let hosts: BTreeSet<String> = (0..8).map(|_| ask()).collect();
    assert_eq!(hosts.len(), 1, "{hosts:?}");
    tool.ok_with("patch service sticky -p", &[r#"{"spec":{"sessionAffinity":"None"}}"#], "");
    let mut hosts = BTreeSet::new();
    eventually_ok("affinity to end", PATIENCE, || {
        hosts.insert(ask());
        if hosts.len() == 2 { Ok(()) } else { Err(format!("{hosts:?}")) }
    });
}

fn nobody(tool: &Tool<'_>) {
    let port = tool.field("service/nobody", "{.spec.ports[0].nodePort}");
    let unready = cluster_ip(tool, "unready");
    for address in [cluster_ip(tool, "nobody"), unready, format!("127.0.0.1:{port}")] {
        let answer = get(tool.cluster, &format!("http://{address}/"));
        // What curl says when it is refused, at once and not for want of an answer.
        let refused = answer.as_ref().is_err_and(|said| said.contains("code: Some(7)"));
        assert!(refused, "{address}: {answer:?}");
    }
    tool.refused("exec client -- /testapp get http://nobody/", "Connection refused");
}

/// A Service without selector leads where its EndpointSlice says.
fn by_hand(tool: &Tool<'_>) {
    let target = tool.field("pod/client", "{.status.podIP}");
    tool.apply(&format!(
        "---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
         metadata: {{name: manual-1, labels: {{kubernetes.io/service-name: manual}}}}, \
         ports: [{{name: http, port: 8080}}], endpoints: [{{addresses: ['{target}']}}]}}"
    ));
    let url = format!("http://{}/hostname", cluster_ip(tool, "manual"));
    let host = eventually_ok("the slice made by hand", PATIENCE, || get(tool.cluster, &url));
    assert_eq!(host, "client\n");
}

fn datagrams(tool: &Tool<'_>) {
    let address = format!("{}:53", cluster_ip(tool, "datagrams"));
    let work = tool.cluster.namespace().run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        eventually_ok("an echoed datagram", PATIENCE, || {
            socket.send_to(b"hello", &address).map_err(|error| error.to_string())?;
            let mut buffer = [0; 16];
            let (length, _) = socket.recv_from(&mut buffer).map_err(|error| error.to_string())?;
            Ok::<_, String>(buffer[..length].to_vec())
        })
    });
    assert_eq!(work.join().expect("the client does not panic"), b"hello");
}

/// The API is there for pods, under its name, with their account's token and authority.
fn api(tool: &Tool<'_>) {
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    let token = tool.inside("client", &["cat", &format!("{account}/token")]);
    let authority = tool.inside("client", &["cat", &format!("{account}/ca.crt")]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), authority).expect("write the authority");
    let mut command = tool.cluster.namespace().command("curl");
    command.args(["--silent", "--show-error", "--max-time", "10"]);
    command.args(["--resolve", "kubernetes.default.svc:443:10.96.0.1"]);
    command.arg("--cacert").arg(file.path());
    command.args(["--header", &format!("Authorization: Bearer {token}")]);
    command.arg("https://kubernetes.default.svc/api/v1/namespaces/services/pods");
    let answer = crate::tool::finish(command, "");
    let user = r#"User \"system:serviceaccount:services:default\" cannot list resource \"pods\""#;
    assert!(answer.out.contains(user), "{answer:?}");
}

fn changes(tool: &Tool<'_>) {
    let web = cluster_ip(tool, "web");
    tool.refused_with(
        "patch service web -p",
        &[r#"{"spec":{"clusterIP":"10.96.99.99"}}"#],
        "spec.clusterIPs[0]: Invalid value: [\"10.96.99.99\"]: may not change once set",
    );
    tool.refused(
        "create service nodeport taken --tcp=80:80 --node-port=80",
        "provided port is not in the valid range. The range of valid ports is 30000-32767",
    );
    let port = tool.field("service/node", "{.spec.ports[0].nodePort}");
    tool.refused(
        &format!("create service nodeport taken --tcp=80:80 --node-port={port}"),
        "provided port is already allocated",
    );
    tool.refused(
        &format!("create service clusterip taken --tcp=80:80 --clusterip={web}"),
        "provided IP is already allocated",
    );
    tool.ok("scale deploy/web --replicas=0");
    let url = format!("http://{web}/");
    eventually_ok("the service to lead nowhere", PATIENCE, || match get(tool.cluster, &url) {
        Ok(answer) => Err(answer),
        Err(_) => Ok(()),
    });
    tool.ok("delete service web node");
    let slices = "get endpointslices -l kubernetes.io/service-name=web -o name";
    tool.until(slices, &[], str::is_empty);
    let missing =
        || tool.run("exec client -- /testapp resolve web.services.svc.cluster.local.", &[], "");
    eventually_ok("the name to be gone", PATIENCE, || match missing().code {
        Some(1) => Ok(()),
        code => Err(format!("{code:?}")),
    });
    tool.ok(&format!("create service clusterip again --tcp=80:80 --clusterip={web}"));
}
