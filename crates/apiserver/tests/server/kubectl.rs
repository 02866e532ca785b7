//! Real kubectl, oldest and newest that are installed, against a listener with TLS on loopback.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

#[path = "kubectl/steps.rs"]
mod steps;

use crate::support::Cluster;
use pki::{Profile, kubeconfig};

/// Commands and what they print, told one after the other; the files they name are beside them.
const STORIES: [&str; 3] = [
    include_str!("kubectl/story.txt"),
    include_str!("kubectl/apply.txt"),
    include_str!("kubectl/more.txt"),
];

/// kubectl and its siblings, `kubectl.1.27` and so on, wherever the link in PATH leads.
fn installed() -> Vec<PathBuf> {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|directory| directory.join("kubectl"))
        .find_map(|path| path.canonicalize().ok());
    let Some(found) = found else { return Vec::new() };
    let sibling = |version: &str| found.with_file_name(format!("kubectl.{version}"));
    let versions: Vec<PathBuf> = ["1.27", "1.33"]
        .iter()
        .map(|version| sibling(version))
        .filter(|path| path.exists())
        .collect();
    if versions.is_empty() { vec![found] } else { versions }
}

/// Runs kubectl where the story's files and its configuration are.
fn run(program: &Path, home: &Path, words: &[String]) -> Output {
    Command::new(program)
        .current_dir(home)
        .env("KUBECONFIG", home.join("kubeconfig"))
        .env("HOME", home)
        .env("KUBECTL_APPLYSET", "true")
        .env("KUBE_EDITOR", "sed -i s/replicas:.2/replicas:\\ 4/")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("kubectl runs")
}

/// Tells all stories; the surprises of each are told at its end.
fn tell(program: &Path, home: &Path) {
    let ask = |words: &[String]| {
        let output = run(program, home, words);
        let shown = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        steps::Ended { code: output.status.code(), shown: shown.join("") }
    };
    let (name, team) = (program.to_string_lossy(), home.file_name().unwrap_or_default());
    let fill = |text: &str| text.replace("{team}", &team.to_string_lossy());
    STORIES.into_iter().for_each(|story| steps::tell(story, &name, fill, ask));
    let kinds = ask(&["api-resources", "-o", "name"].map(str::to_owned)).shown;
    // Both groups call theirs events, and kubectl takes what follows for a field.
    for kind in kinds.lines().filter(|kind| *kind != "events.events.k8s.io") {
        let ended = ask(&["explain", kind, "--recursive"].map(str::to_owned));
        assert!(ended.shown.contains("FIELDS:"), "explain {kind}: {}", ended.shown);
    }
}

/// The files of the story, in a directory of its own.
fn furnish(home: &Path, config: &str, authority: &pki::Authority) {
    std::fs::create_dir(home).expect("home");
    std::fs::write(home.join("kubeconfig"), config).expect("kubeconfig");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/kubectl");
    for entry in std::fs::read_dir(source).expect("files") {
        let entry = entry.expect("a file");
        let request = crate::minimal::content("", "CertificateSigningRequest");
        let request = request["spec"]["request"].as_str().expect("a request");
        let team = home.file_name().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(entry.path()).expect("text");
        let text = text.replace("REQUEST", request).replace("TEAM", &team);
        std::fs::write(home.join(entry.file_name()), text).expect("copied");
    }
    let identity = authority.issue(&Profile::client("pair", None)).expect("certificate");
    std::fs::write(home.join("certificate.pem"), &identity.certificate).expect("written");
    std::fs::write(home.join("key.pem"), &identity.key).expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_cannot_tell_the_difference() {
    let programs = installed();
    if programs.is_empty() {
        eprintln!("no kubectl in PATH: nothing tested");
        return;
    }
    let cluster = Cluster::start().await;
    let address = cluster.listen(cluster.server.clone()).await;
    let identity = cluster
        .authority
        .issue(&Profile::client("admin", Some("system:masters")))
        .expect("certificate");
    let config = kubeconfig(
        "test",
        &format!("https://{address}"),
        cluster.authority.certificate(),
        &identity,
    );
    for (number, program) in programs.iter().enumerate() {
        let home = cluster.directory.path().join(format!("home{number}"));
        furnish(&home, &config, &cluster.authority);
        let program = program.clone();
        tokio::task::spawn_blocking(move || tell(&program, &home)).await.expect("the story holds");
    }
}
