//! What a node makes of pods: the behaviour that Kubernetes' conformance suite checks of kubelets.
//! Everything is created at once, so that waits run beside each other.

mod content;
mod life;
mod place;

use testkit::{Cluster, website_images};

use crate::tool::Tool;

#[test]
fn pods_run_as_kubernetes_runs_them() {
    let cluster = Cluster::start(crate::SKIFF);
    cluster.import(&website_images());
    let tool = Tool::new(&cluster, "pods");
    tool.ok("create namespace pods");
    let host = tempfile::tempdir().expect("a directory");
    let path = host.path().to_str().expect("paths in tests are UTF-8");
    for manifest in
        [include_str!("content.yaml"), include_str!("life.yaml"), include_str!("place.yaml")]
    {
        tool.apply(&manifest.replace("@HOST@", path));
    }
    content::all(&tool);
    place::all(&tool);
    life::all(&tool, host.path());
}

/// The state of a container that has ended, as JSONPath.
fn ended(container: &str, field: &str) -> String {
    format!("{{.status.containerStatuses[?(@.name==\"{container}\")].state.terminated.{field}}}")
}
