//! kubectl as a user runs it in one namespace: a line in, output or complaint out. Every call ends by itself.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::{Cluster, eventually_ok};

/// How long anything may take on a machine busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);
/// The same, as `timeout` takes it.
const LONGEST: &str = "240";

/// One kubectl, used in one namespace.
#[derive(Clone)]
pub(crate) struct Tool<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) program: String,
    pub(crate) namespace: String,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl<'a> Tool<'a> {
    /// The machine's own kubectl.
    pub(crate) fn new(cluster: &'a Cluster, namespace: &str) -> Self {
        Self { cluster, program: "kubectl".to_owned(), namespace: namespace.to_owned() }
    }

    /// The command for a line of words and further arguments that may hold spaces.
    pub(crate) fn command(&self, line: &str, more: &[&str]) -> Command {
        let mut arguments = vec![LONGEST, &self.program, "--namespace", &self.namespace];
        arguments.extend(line.split_whitespace());
        arguments.extend(more);
        self.cluster.kubectl_of("timeout", &arguments)
    }

    /// Runs it, with something on standard input, and says how it ended.
    pub(crate) fn run(&self, line: &str, more: &[&str], input: &str) -> Outcome {
        finish(self.command(line, more), input)
    }

    /// Runs a line that succeeds; what it printed.
    pub(crate) fn ok(&self, line: &str) -> String {
        self.ok_with(line, &[], "")
    }

    /// Runs a line, with further arguments and input, that succeeds.
    pub(crate) fn ok_with(&self, line: &str, more: &[&str], input: &str) -> String {
        let outcome = self.run(line, more, input);
        assert_eq!(outcome.code, Some(0), "{} {line} {more:?}: {outcome:?}", self.program);
        outcome.out
    }

    /// Runs a line that prints all of these words.
    pub(crate) fn shows(&self, line: &str, words: &[&str]) -> String {
        let out = self.ok(line);
        for word in words {
            assert!(out.contains(word), "{} {line} shows no {word:?}:\n{out}", self.program);
        }
        out
    }

    /// Runs a line that fails with this complaint.
    pub(crate) fn refused(&self, line: &str, complaint: &str) {
        self.refused_with(line, &[], complaint);
    }

    /// Runs a line, with further arguments, that fails with this complaint.
    pub(crate) fn refused_with(&self, line: &str, more: &[&str], complaint: &str) {
        let outcome = self.run(line, more, "");
        assert_ne!(outcome.code, Some(0), "{} {line} succeeds: {outcome:?}", self.program);
        assert!(outcome.err.contains(complaint), "{} {line} {more:?}: {outcome:?}", self.program);
    }

    /// Applies a manifest.
    pub(crate) fn apply(&self, manifest: &str) -> String {
        self.ok_with("apply -f -", &[], manifest)
    }

    /// One field of an object, as JSONPath says it.
    pub(crate) fn field(&self, object: &str, path: &str) -> String {
        self.ok_with(&format!("get {object}"), &["-o", &format!("jsonpath={path}")], "")
    }

    /// Waits until a line succeeds and prints what `accept` takes.
    pub(crate) fn until(&self, line: &str, more: &[&str], accept: impl Fn(&str) -> bool) -> String {
        eventually_ok(&format!("kubectl {line} {more:?}"), PATIENCE, || {
            let outcome = self.run(line, more, "");
            match outcome.code {
                Some(0) if accept(&outcome.out) => Ok(outcome.out),
                _ => Err(format!("{outcome:?}")),
            }
        })
    }

    /// Waits until a field of an object has a value.
    pub(crate) fn until_field(&self, object: &str, path: &str, value: &str) {
        let path = format!("jsonpath={path}");
        self.until(&format!("get {object}"), &["-o", &path], |out| out == value);
    }

    /// Waits until pods are Ready.
    pub(crate) fn ready(&self, pods: &str) {
        self.ok(&format!("wait --for=condition=Ready --timeout=200s {pods}"));
    }

    /// What `/testapp <words>` prints in a running container.
    pub(crate) fn inside(&self, pod: &str, words: &[&str]) -> String {
        let words = [&["--", "/testapp"], words].concat();
        self.ok_with(&format!("exec {pod}"), &words, "")
    }

    /// Starts a line that goes on, and waits until it has printed a line that holds `word`.
    pub(crate) fn background(&self, line: &str, word: &str) -> Background {
        let mut child = self
            .command(line, &[])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start kubectl");
        let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        let mut background = Background { child, lines };
        background.until(word);
        background
    }
}

/// A kubectl that goes on until this is dropped.
pub(crate) struct Background {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Background {
    /// Reads lines up to one that holds `word`; `timeout` ends what never prints it.
    pub(crate) fn until(&mut self, word: &str) -> String {
        let mut seen = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.expect("kubectl prints text");
            if line.contains(word) {
                return line;
            }
            seen.push(line);
        }
        panic!("kubectl ended before it printed {word:?}: {seen:?}");
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // `timeout` passes this on; killing it would leave its child.
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
pub(crate) fn finish(mut command: Command, input: &str) -> Outcome {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start a command");
    let mut stdin = child.stdin.take().expect("its input is piped");
    // A command that does not read closes its end.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("wait for a command");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// What GET prints at an address in the node's network; the complaint where it fails.
pub(crate) fn get(cluster: &Cluster, url: &str) -> Result<String, String> {
    let mut command = cluster.namespace().command("curl");
    command.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "10", url]);
    let outcome = finish(command, "");
    match outcome.code {
        Some(0) => Ok(outcome.out),
        _ => Err(format!("{outcome:?}")),
    }
}

/// The kubectls of other versions that are installed, oldest first.
pub(crate) fn versions() -> Vec<(u32, PathBuf)> {
    let own = std::fs::canonicalize("/usr/bin/kubectl").ok();
    let Some(directory) = own.as_deref().and_then(std::path::Path::parent) else {
        return Vec::new();
    };
    let all = (27..=33).map(|minor| (minor, directory.join(format!("kubectl.1.{minor}"))));
    let (found, missing): (Vec<_>, Vec<_>) = all.partition(|(_, path)| path.exists());
    for (minor, path) in missing {
        println!("skipped: kubectl 1.{minor} is not installed as {}", path.display());
    }
    found
}
