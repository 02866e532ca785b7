//! Real kubectl, oldest and newest that are installed, against a listener with TLS on loopback.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::support::Cluster;
use pki::{Profile, kubeconfig};

/// Commands and what they print; the files they name are beside it.
const STORY: &str = concat!(include_str!("kubectl/story.txt"), include_str!("kubectl/apply.txt"));

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

/// One command of the story.
struct Step {
    line: usize,
    succeeds: bool,
    /// Whether the oldest kubectl is not asked.
    newer: bool,
    /// Whether it may fail all the same.
    either: bool,
    words: Vec<String>,
    expected: Vec<&'static str>,
}

fn story() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in STORY.lines().enumerate() {
        if let Some((mark @ ("$" | "!" | "?"), command)) = line.split_once(' ') {
            let (command, either) = match command.strip_suffix(" || true") {
                Some(command) => (command, true),
                None => (command, false),
            };
            let (words, expected) = (words(command), Vec::new());
            steps.push(Step {
                line: number + 1,
                succeeds: mark != "!",
                newer: mark == "?",
                either,
                words,
                expected,
            });
        } else if let Some(step) =
            steps.last_mut().filter(|_| !line.is_empty() && !line.starts_with('#'))
        {
            step.expected.push(line);
        }
    }
    steps
}

/// Words between spaces; single quotes hold together.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for character in command.chars() {
        match character {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            _ => words.last_mut().expect("a word").push(character),
        }
    }
    words
}

/// Runs kubectl where the story's files and its configuration are.
fn run(program: &Path, home: &Path, words: &[String]) -> Output {
    let team = home.file_name().unwrap_or_default().to_string_lossy();
    Command::new(program)
        .current_dir(home)
        .env("KUBECONFIG", home.join("kubeconfig"))
        .env("HOME", home)
        .env("KUBECTL_APPLYSET", "true")
        .env("KUBE_EDITOR", "sed -i s/replicas:.2/replicas:\\ 4/")
        .args(words.iter().map(|word| word.replace("{team}", &team)))
        .stdin(Stdio::null())
        .output()
        .expect("kubectl runs")
}

/// Tells the whole story; all surprises are told at its end.
fn tell(program: &Path, home: &Path) {
    let mut surprises = Vec::new();
    let oldest = program.ends_with("kubectl.1.27");
    for step in story().into_iter().filter(|step| !(step.newer && oldest)) {
        let output = run(program, home, &step.words);
        let shown = text(&output);
        let missing: Vec<_> = step.expected.iter().filter(|text| !shown.contains(**text)).collect();
        if !missing.is_empty() || (output.status.success() != step.succeeds && !step.either) {
            let (line, command) = (step.line, step.words.join(" "));
            surprises.push(format!(
                "{line}: {command}: {:?}, without {missing:?}: {shown}",
                output.status.code()
            ));
        }
    }
    assert!(surprises.is_empty(), "{}:\n{}", program.display(), surprises.join("\n"));
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .join("")
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
        let text = std::fs::read_to_string(entry.path()).expect("text").replace("REQUEST", request);
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
