//! Bad input and faults: whatever goes wrong is told in Kubernetes' words, costs nothing that was
//! acknowledged, and mends itself when its cause is gone.

mod crash;
mod disk;
mod hostile;
mod http;
mod input;
mod meanwhile;
mod pods;
mod pulls;
mod refusals;
mod startup;

use std::path::Path;
use std::time::Duration;

use testkit::{Cluster, eventually_ok};

/// How long anything may take on a machine busy with other tests.
const PATIENCE: Duration = Duration::from_secs(240);

/// Waits until `kubectl <arguments>` prints what `accept` takes, and returns it.
fn await_output(cluster: &Cluster, arguments: &[&str], accept: impl Fn(&str) -> bool) -> String {
    eventually_ok(&format!("kubectl {}", arguments.join(" ")), PATIENCE, || {
        match cluster.try_kubectl(arguments) {
            Ok(output) if accept(&output) => Ok(output),
            Ok(output) => Err(format!("it prints {output:?}")),
            Err(error) => Err(format!("{error:#}")),
        }
    })
}

/// One field of an object, as JSONPath says it.
fn field(cluster: &Cluster, object: &str, path: &str) -> String {
    cluster.kubectl(&["get", object, "-o", &format!("jsonpath={path}")])
}

/// Waits until a field of an object has the value.
fn await_field(cluster: &Cluster, object: &str, path: &str, value: &str) {
    await_output(cluster, &["get", object, "-o", &format!("jsonpath={path}")], |output| {
        output == value
    });
}

/// Waits until there is an event about a pod with this type, reason and part of its message.
fn await_event(cluster: &Cluster, pod: &str, kind: &str, reason: &str, message: &str) {
    let selector =
        format!("involvedObject.kind=Pod,involvedObject.name={pod},type={kind},reason={reason}");
    let path = r#"jsonpath={range .items[*]}{.message}{"\n"}{end}"#;
    await_output(
        cluster,
        &["get", "events", "--field-selector", &selector, "-o", path],
        |output| output.lines().any(|line| line.contains(message)),
    );
}

/// Waits until a pod's first container waits for the reason; returns the message beside it.
fn await_waiting(cluster: &Cluster, pod: &str, reason: &str) -> String {
    let path = "jsonpath={.status.containerStatuses[0].state.waiting.reason}: \
                {.status.containerStatuses[0].state.waiting.message}";
    let start = format!("{reason}:");
    let output = await_output(cluster, &["get", "pod", pod, "-o", path], |output| {
        output.starts_with(&start)
    });
    output[start.len()..].trim().to_owned()
}

/// Waits until a pod is Ready.
fn await_ready(cluster: &Cluster, pod: &str) {
    let path = r#"{.status.conditions[?(@.type=="Ready")].status}"#;
    await_field(cluster, &format!("pod/{pod}"), path, "True");
}

/// The manifest of a pod with one container of the sample image; `container` are its further fields,
/// `spec` those of the pod, both as YAML in flow style.
fn pod(name: &str, arguments: &str, container: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, \
         containers: [{{name: c, image: 'skiff.local/website:1.0.0', args: {arguments}{container}}}]{spec}}}}}"
    )
}

/// Processes whose command line mentions `text`, this one excepted.
fn processes_with(text: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").expect("/proc is mounted");
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().into_string().ok()?;
            pid.parse::<u32>().ok()?;
            let command = std::fs::read(entry.path().join("cmdline")).ok()?;
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            (pid != own && command.contains(text)).then(|| format!("{pid}: {command}"))
        })
        .collect()
}

/// Mounts at or below a directory.
fn mounts_below(directory: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|mount| Path::new(mount).starts_with(directory))
        .map(str::to_owned)
        .collect()
}

/// The directory of this boot's files that belongs to a data directory.
fn run_directory(data_directory: &Path) -> std::path::PathBuf {
    use std::hash::Hasher;
    use std::os::unix::ffi::OsStrExt;
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(data_directory.as_os_str().as_bytes());
    format!("/run/skiff-{:016x}", hasher.finish()).into()
}

/// Fails where the log of a cluster tells of a panic.
fn assert_calm(cluster: &Cluster) {
    let log = cluster.log();
    let panic = log.lines().find(|line| line.contains("panicked"));
    assert_eq!(panic, None, "no part of a cluster panics");
}

/// Fails where anything of a cluster is left beside its data directory.
pub(crate) fn assert_nothing_left(
    namespace: &testkit::Machine,
    data_directory: &Path,
    cgroup: &str,
) {
    let run = run_directory(data_directory);
    for place in [data_directory, &run] {
        let text = place.to_str().expect("paths in tests are UTF-8");
        assert_eq!(processes_with(text), Vec::<String>::new(), "processes are left");
        let below = mounts_below(place);
        let below: Vec<_> = below.iter().filter(|mount| Path::new(mount) != place).collect();
        assert!(below.is_empty(), "mounts are left: {below:?}");
    }
    assert!(!run.exists(), "{} is left", run.display());
    let output = |program: &str, arguments: &[&str]| {
        let output = namespace.command(program).args(arguments).output().expect("start a tool");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let links = output("ip", &["-brief", "link"]);
    let foreign: Vec<&str> = links
        .lines()
        .filter(|line| !["lo", "eth0", "wire0"].iter().any(|known| line.starts_with(known)))
        .collect();
    assert!(foreign.is_empty(), "interfaces are left: {foreign:?}");
    assert_eq!(output("nft", &["list", "tables"]), "", "nftables tables are left");
    assert_eq!(cgroups_named(cgroup), Vec::<String>::new(), "cgroups are left");
}

/// Cgroups of that name below the root of any hierarchy.
fn cgroups_named(name: &str) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            kind.starts_with("cgroup").then(|| Path::new(path).join(name))
        })
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect()
}
