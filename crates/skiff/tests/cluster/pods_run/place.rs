//! Where containers run: users and rights, names and resolvers, the node's network, control groups.

use std::path::{Path, PathBuf};

use testkit::eventually_ok;

use crate::tool::{PATIENCE, Tool, get};

pub(super) fn all(tool: &Tool<'_>) {
    tool.ready("pod/named pod/user pod/hostnetwork pod/hostport pod/owndns pod/hostdns pod/shared pod/guaranteed pod/burstable");
    names(tool);
    users(tool);
    node_network(tool);
    groups(tool);
    assert_eq!(tool.field("pod/named", "{.metadata.generation}"), "1", "binding is no new wish");
    tool.until_field("pod/sysctl", "{.status.phase} {.status.reason}", "Failed SysctlForbidden");
    let processes = tool.ok("exec shared -c beside -- /testapp ls /proc");
    let numbers = processes.lines().filter(|line| line.starts_with(char::is_numeric)).count();
    assert!(numbers >= 4, "the pod's pause, both containers and this one: {processes}");
    tool.ok("delete pod named user nonroot hostnetwork hostport owndns hostdns shared guaranteed burstable sysctl --grace-period=1");
}

fn names(tool: &Tool<'_>) {
    assert_eq!(tool.inside("named", &["cat", "/proc/sys/kernel/hostname"]), "first\n");
    let hosts = tool.inside("named", &["cat", "/etc/hosts"]);
    let ip = tool.field("pod/named", "{.status.podIP}");
    let own = format!("{ip}\tfirst.sub.pods.svc.cluster.local\tfirst");
    for line in ["127.0.0.1\tlocalhost", &own, "10.1.2.3\tfoo.local\tbar.local"] {
        assert!(hosts.contains(line), "no {line:?} in\n{hosts}");
    }
    let resolver = |pod: &str| tool.inside(pod, &["cat", "/etc/resolv.conf"]);
    let cluster = "search pods.svc.cluster.local svc.cluster.local cluster.local";
    for pod in ["named", "hostnetwork"] {
        let text = resolver(pod);
        for line in [cluster, "nameserver 10.96.0.10", "options ndots:5"] {
            assert!(text.contains(line), "{pod} has no {line:?}: {text}");
        }
    }
    assert_eq!(
        resolver("owndns").split_whitespace().collect::<Vec<_>>().join(" "),
        "search a.b c.d nameserver 1.2.3.4 options ndots:3 edns0"
    );
    assert!(!resolver("hostdns").contains("cluster.local"));
    assert_eq!(tool.inside("hostnetwork", &["resolve", "kubernetes.default"]), "10.96.0.1\n");
}

fn users(tool: &Tool<'_>) {
    let status = |container: &str| {
        tool.inside(&format!("user -c {container}"), &["cat", "/proc/self/status"])
    };
    let main = status("main");
    for line in [
        "Uid:\t1001\t1001\t1001\t1001",
        "Gid:\t2002\t2002\t2002\t2002",
        "Groups:\t2002 3003 4004",
        "CapBnd:\t0000000000000400",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(main.contains(line), "no {line:?} in\n{main}");
    }
    let root = status("root");
    for line in ["Uid:\t0\t0\t0\t0", "NoNewPrivs:\t0", "Seccomp:\t0"] {
        assert!(root.contains(line), "no {line:?} in\n{root}");
    }
    tool.inside("user -c main", &["write", "/disk/a", "b"]);
    tool.refused("exec user -c main -- /testapp write /a b", "Read-only file system");
    let start = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    assert_eq!(tool.inside("user -c main", &["cat", start]), "0\n");
    let waiting = "{.status.containerStatuses[0].state.waiting.reason}";
    tool.until_field("pod/nonroot", waiting, "CreateContainerConfigError");
    tool.until("describe pod nonroot", &[], |out| {
        out.contains("container's runAsUser breaks non-root policy")
    });
}

fn node_network(tool: &Tool<'_>) {
    let node_ip = tool.field("pod/hostnetwork", "{.status.hostIP}");
    assert_eq!(tool.field("pod/hostnetwork", "{.status.podIP}"), node_ip);
    for address in
        ["127.0.0.1:9191", "127.0.0.1:9292", "127.0.0.1:9393", &format!("{node_ip}:9292")]
    {
        let version = get(tool.cluster, &format!("http://{address}/version"));
        assert_eq!(version.as_deref(), Ok("1.0.0\n"), "{address}");
    }
    let closed = get(tool.cluster, &format!("http://{node_ip}:9393/version"));
    assert!(closed.is_err(), "a port on loopback only answers elsewhere: {closed:?}");
    let again = r#"{"spec":{"containers":[{"name":"again","image":"skiff.local/website:1.0.0","ports":[{"containerPort":1,"hostPort":9292}]}]}}"#;
    tool.ok_with("run again --image=x --overrides", &[again], "");
    tool.until("get events", &[], |out| {
        out.contains("didn't have free ports for the requested pod ports")
    });
    tool.ok("delete pod again --now");
}

fn groups(tool: &Tool<'_>) {
    assert_eq!(tool.field("pod/guaranteed", "{.status.qosClass}"), "Guaranteed");
    assert_eq!(tool.field("pod/burstable", "{.status.qosClass}"), "Burstable");
    assert_eq!(tool.field("pod/named", "{.status.qosClass}"), "BestEffort");
    let memory = limit(tool, "guaranteed", &["memory.limit_in_bytes", "memory.max"]);
    assert_eq!(memory, "67108864");
    let quota = limit(tool, "guaranteed", &["cpu.cfs_quota_us", "cpu.max"]);
    assert!(quota == "10000" || quota == "10000 100000", "{quota}");
    let shares = limit(tool, "burstable", &["cpu.shares", "cpu.weight"]);
    assert!(shares == "256" || shares == "10", "{shares}");
}

/// The setting of a pod's control group, whatever this machine calls it.
fn limit(tool: &Tool<'_>, pod: &str, names: &[&str]) -> String {
    let uid = tool.field(&format!("pod/{pod}"), "{.metadata.uid}");
    eventually_ok("the pod's control group", PATIENCE, || {
        let group = find(Path::new("/sys/fs/cgroup"), &uid, names, 7);
        group.map(|text| text.trim().to_owned()).ok_or("it is not there")
    })
}

fn find(directory: &Path, uid: &str, names: &[&str], depth: usize) -> Option<String> {
    let directories: Vec<PathBuf> = std::fs::read_dir(directory)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && !path.is_symlink())
        .collect();
    directories.iter().find_map(|path| {
        let here = path.file_name().is_some_and(|name| name.to_string_lossy().contains(uid));
        if here {
            names.iter().find_map(|name| std::fs::read_to_string(path.join(name)).ok())
        } else if depth > 0 {
            find(path, uid, names, depth - 1)
        } else {
            None
        }
    })
}
