//! Images that are not there: from a registry that is down, with a policy that forbids to ask, or by a
//! name that is none. Pods start when the image has come.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use testkit::{Cluster, eventually, website_images};

use super::{PATIENCE, await_event, await_ready, await_waiting, field, run_directory};

const REGISTRY: &str = "127.0.0.1:5000";

/// The registry of Debian's package, on loopback of the cluster's namespace; ends when dropped.
struct Registry(Child);

impl Registry {
    fn start(cluster: &Cluster) -> Self {
        let place = cluster.directory().join("registry");
        std::fs::create_dir(&place).expect("a directory");
        let configuration = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '{REGISTRY}'}}\n",
            place.display()
        );
        let file = place.join("config.yml");
        std::fs::write(&file, configuration).expect("write the configuration");
        let log = std::fs::File::create(place.join("log")).expect("a log");
        let mut command = cluster.namespace().command("docker-registry");
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let registry = Self(command.spawn().expect("docker-registry is installed"));
        eventually("the registry to answer", PATIENCE, || {
            let mut curl = cluster.namespace().command("curl");
            curl.args(["--silent", "--fail", "--output", "/dev/null", "--max-time", "5"]);
            curl.arg(format!("http://{REGISTRY}/v2/"));
            curl.status().is_ok_and(|status| status.success())
        });
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends an image of the node to the registry under another name.
fn push(cluster: &Cluster, local: &str, remote: &str) {
    let socket = run_directory(cluster.directory()).join("containerd/containerd.sock");
    let output = ctr(cluster, &socket)
        .args(["images", "push", "--plain-http", remote, local])
        .output()
        .expect("start ctr");
    assert!(output.status.success(), "ctr push: {}", String::from_utf8_lossy(&output.stderr));
}

fn ctr(cluster: &Cluster, socket: &Path) -> Command {
    let mut command = cluster.namespace().command("ctr");
    command.arg("--address").arg(socket).args(["--namespace", "k8s.io"]);
    command
}

fn pod(name: &str, image: &str, policy: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, \
         containers: [{{name: c, image: '{image}', imagePullPolicy: {policy}}}]}}}}"
    )
}

#[test]
fn missing_images_are_waited_for() {
    let cluster = Cluster::start(crate::SKIFF);
    let images = website_images();
    let remote = format!("{REGISTRY}/website:1.0.0");
    for manifest in [
        pod("pulled", &remote, "IfNotPresent"),
        pod("never", "skiff.local/website:1.1.0", "Never"),
        pod("misnamed", "Not/A/Name", "IfNotPresent"),
    ] {
        cluster.apply(&manifest).expect("the pod is accepted");
    }

    let never = "Container image \"skiff.local/website:1.1.0\" is not present with pull policy of \
                 Never";
    assert_eq!(await_waiting(&cluster, "never", "ErrImageNeverPull"), never);
    await_event(&cluster, "never", "Warning", "ErrImageNeverPull", never);
    await_event(&cluster, "never", "Warning", "Failed", "Error: ErrImageNeverPull");

    let misnamed = await_waiting(&cluster, "misnamed", "InvalidImageName");
    assert!(
        misnamed.starts_with("Failed to apply default image tag \"Not/A/Name\": couldn't parse"),
        "{misnamed}"
    );
    await_event(&cluster, "misnamed", "Warning", "InspectFailed", "Failed to apply default image");
    await_event(&cluster, "misnamed", "Warning", "Failed", "Error: InvalidImageName");

    await_event(&cluster, "pulled", "Normal", "Pulling", &format!("Pulling image \"{remote}\""));
    let failed = format!("Failed to pull image \"{remote}\": ");
    await_event(&cluster, "pulled", "Warning", "Failed", &failed);
    await_event(&cluster, "pulled", "Warning", "Failed", "Error: ErrImagePull");
    let waiting = await_waiting(&cluster, "pulled", "ImagePullBackOff");
    let back_off = format!("Back-off pulling image \"{remote}\"");
    assert!(waiting.starts_with(&back_off), "{waiting}");
    await_event(&cluster, "pulled", "Normal", "BackOff", &back_off);
    await_event(&cluster, "pulled", "Warning", "Failed", "Error: ImagePullBackOff");
    for pod in ["pulled", "never", "misnamed"] {
        assert_eq!(field(&cluster, &format!("pod/{pod}"), "{.status.phase}"), "Pending");
    }

    // The causes go: an image comes into the node, another into the registry.
    cluster.import(&images[..2]);
    await_ready(&cluster, "never");
    let _registry = Registry::start(&cluster);
    push(&cluster, "skiff.local/website:1.0.0", &remote);
    await_ready(&cluster, "pulled");
    let pulled = format!("Successfully pulled image \"{remote}\" in ");
    await_event(&cluster, "pulled", "Normal", "Pulled", &pulled);
    cluster.kubectl(&["set", "image", "pod/misnamed", "c=skiff.local/website:1.0.0"]);
    await_ready(&cluster, "misnamed");

    // A tag that the registry does not have.
    let absent = format!("{REGISTRY}/website:9.9.9");
    cluster.apply(&pod("absent", &absent, "Always")).expect("the pod is accepted");
    let failed = format!("Failed to pull image \"{absent}\": ");
    await_event(&cluster, "absent", "Warning", "Failed", &failed);
    await_event(&cluster, "absent", "Warning", "Failed", "not found");
    // Always asks even though the node has the image.
    cluster.apply(&pod("always", &remote, "Always")).expect("the pod is accepted");
    await_ready(&cluster, "always");
    await_event(&cluster, "always", "Normal", "Pulled", &pulled);
}
