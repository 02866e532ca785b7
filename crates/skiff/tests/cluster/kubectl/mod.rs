//! Everything a user of kubectl expects, with every kubectl that is installed.

mod changing;
mod cluster;
mod commands;
mod reading;
mod rights;
pub(crate) mod streams;

use testkit::{Cluster, website_images};

use crate::tool::{Tool, versions};

pub(crate) const IMAGE: &str = "skiff.local/website:1.0.0";

#[test]
fn old_and_new_kubectl_read_change_and_stream() {
    let cluster = Cluster::start(crate::SKIFF);
    cluster.import(&website_images());
    let mut tools: Vec<Tool<'_>> = versions()
        .into_iter()
        .map(|(minor, path)| Tool {
            cluster: &cluster,
            program: path.to_str().expect("paths in tests are UTF-8").to_owned(),
            namespace: format!("old-{minor}"),
        })
        .collect();
    if tools.is_empty() {
        tools.push(Tool::new(&cluster, "own"));
    }
    // Two at a time: each waits for pods most of the time. Between the oldest and the newest, only what
    // has changed from version to version is looked at.
    let last = tools.len() - 1;
    let numbered: Vec<(usize, &Tool<'_>)> = tools.iter().enumerate().collect();
    for pair in numbered.chunks(2) {
        std::thread::scope(|scope| {
            for (index, tool) in pair {
                let whole = *index == 0 || *index == last;
                scope.spawn(move || story(tool, whole));
            }
        });
    }
}

fn story(tool: &Tool<'_>, whole: bool) {
    tool.ok(&format!("create namespace {}", tool.namespace));
    tool.ok(&format!("create deployment web --image={IMAGE} --replicas=2 --port=8080"));
    tool.shows("rollout status deploy/web --timeout=200s", &["successfully rolled out"]);
    if whole {
        reading::all(tool);
        streams::all(tool);
        commands::all(tool);
        changing::all(tool);
    } else {
        reading::formats(tool);
        streams::carried_differently(tool);
        changing::patches(tool);
    }
}

#[test]
fn kubectl_administers_nodes_rights_and_namespaces() {
    let cluster = Cluster::start(crate::SKIFF);
    cluster.import(&website_images());
    let tool = Tool::new(&cluster, "default");
    tool.ok(&format!("create deployment web --image={IMAGE} --replicas=2 --port=8080"));
    tool.ok("rollout status deploy/web --timeout=200s");
    rights::all(&tool);
    cluster::all(&tool);
}
