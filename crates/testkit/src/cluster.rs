//! One cluster under test: `skiff up` as a child process, `kubectl` beside it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use crate::nodes::Agent;
use crate::{Families, Machine, OUTSIDE, Site, eventually_ok};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// How long a cluster may take until its node is Ready, on a machine busy with other tests.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(240);

/// What differs between clusters under test.
pub struct ClusterOptions {
    /// How many nodes: the first is that of `skiff up`, the others are agents on machines of their own.
    pub nodes: usize,
    /// How many nodes `skiff up` makes by itself (`--nodes`).
    pub local_nodes: usize,
    /// Which addresses machines have.
    pub families: Families,
    /// Further arguments of `skiff agent`.
    pub agent_arguments: Vec<String>,
    /// Further arguments of `skiff up`.
    pub arguments: Vec<String>,
    /// Further environment of `skiff up`.
    pub environment: Vec<(String, String)>,
    /// A directory to use as data directory, instead of a fresh one; it is not removed.
    pub data_directory: Option<PathBuf>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            nodes: 1,
            local_nodes: 1,
            families: Families::default(),
            agent_arguments: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            data_directory: None,
        }
    }
}

/// A running cluster. Dropping it stops it and removes everything it made.
pub struct Cluster {
    pub(crate) executable: PathBuf,
    namespace: Machine,
    pub(crate) outside: Machine,
    directory: PathBuf,
    cgroup: String,
    pub(crate) options: ClusterOptions,
    process: Option<Child>,
    pub(crate) agents: Vec<Agent>,
    /// With which agents join; a restarted one needs none, and its server may be away.
    pub(crate) token: OnceLock<String>,
    _owned: Option<TempDir>,
}

impl Cluster {
    /// Starts a cluster from the `skiff` executable and waits until its nodes are Ready.
    ///
    /// # Panics
    /// When it does not become Ready; its log is printed.
    pub fn start(executable: impl Into<PathBuf>) -> Self {
        Self::start_with(executable, ClusterOptions::default())
    }

    /// As [`Cluster::start`], with options.
    ///
    /// # Panics
    /// When it does not become Ready; its log is printed.
    pub fn start_with(executable: impl Into<PathBuf>, options: ClusterOptions) -> Self {
        let mut cluster = Self::prepare(executable, options).expect("prepare a cluster");
        cluster.spawn().expect("start skiff up");
        (1..cluster.nodes()).for_each(|index| cluster.start_agent(index));
        cluster.wait_ready();
        cluster
    }

    /// Everything but the process: namespace, data directory, names.
    ///
    /// # Errors
    /// When not root, or tools are missing.
    pub fn prepare(
        executable: impl Into<PathBuf>,
        options: ClusterOptions,
    ) -> anyhow::Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let owned = match options.data_directory {
            Some(_) => None,
            // Short: socket paths end after 107 bytes.
            None => Some(
                tempfile::Builder::new()
                    .prefix("skiff-")
                    .tempdir()
                    .context("make a data directory")?,
            ),
        };
        let directory = match (&options.data_directory, &owned) {
            (Some(given), _) => given.clone(),
            (None, Some(owned)) => owned.path().to_owned(),
            (None, None) => bail!("no data directory"),
        };
        let site = Site::create(options.families)?;
        let nodes = options.nodes;
        let mut cluster = Self {
            executable: executable.into(),
            namespace: site.machine("node-1", 1)?,
            outside: site.machine(OUTSIDE, 0)?,
            directory,
            cgroup: format!("skiff-test-{}-{number}", std::process::id()),
            options,
            process: None,
            agents: Vec::new(),
            token: OnceLock::new(),
            _owned: owned,
        };
        for _ in 1..nodes {
            cluster.prepare_node()?;
        }
        Ok(cluster)
    }

    /// Starts `skiff up` without waiting for anything.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .context("open the log")?;
        let local = (self.options.local_nodes > 1).then(|| self.options.local_nodes.to_string());
        let mut command = self.namespace.command(&self.executable);
        command
            .args(["up", "--data-dir"])
            .arg(&self.directory)
            .args(["--cgroup", &self.cgroup])
            .args(if self.options.nodes > 1 { &["--node-name", "node-1"][..] } else { &[] })
            .args(local.iter().flat_map(|nodes| ["--nodes", nodes]))
            .args(&self.options.arguments)
            .envs(self.options.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log);
        self.process = Some(command.spawn().context("start skiff up")?);
        Ok(())
    }

    /// Waits until every node is Ready.
    ///
    /// # Panics
    /// When it does not happen; the log is printed.
    pub fn wait_ready(&mut self) {
        let nodes = self.nodes() + self.options.local_nodes - 1;
        let expected = vec!["True"; nodes].join(" ");
        let ready = || {
            let output = self.try_kubectl(&[
                "get",
                "nodes",
                "-o",
                r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#,
            ])?;
            ensure!(output == expected, "node Ready is {output:?}");
            Ok(())
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually_ok("the nodes to be Ready", READY_TIMEOUT, ready);
        }));
        if let Err(panic) = result {
            eprintln!("log of skiff up:\n{}", self.log());
            std::panic::resume_unwind(panic);
        }
    }

    /// The machine of the first node.
    pub fn namespace(&self) -> &Machine {
        &self.namespace
    }

    /// The data directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The name of the pods' cgroup below each controller's root.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The process of `skiff up`.
    pub fn pid(&self) -> Option<u32> {
        // nsenter without --fork replaces itself by the command.
        self.process.as_ref().map(Child::id)
    }

    /// The processes of the agents that `skiff up` has started, oldest first.
    pub fn local_agents(&self) -> Vec<u32> {
        let nodes = self.directory.join("nodes");
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut pids: Vec<u32> = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &u32| {
                let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
                let command = command.unwrap_or_default();
                let mut words = command.split('\0').skip(1);
                words.next() == Some("agent")
                    && words.any(|word| Path::new(word).starts_with(&nodes))
            })
            .collect();
        pids.sort_unstable();
        pids
    }

    /// What `skiff up` has printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("test.log")
    }

    /// Kills the process as the kernel would when memory runs out; pods stay.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the cluster runs");
        process.kill().expect("kill skiff");
        process.wait().expect("wait for skiff");
    }

    /// Starts it again after [`Cluster::kill`] and waits until the node is Ready.
    ///
    /// # Panics
    /// When it does not become Ready.
    pub fn restart(&mut self) {
        self.spawn().expect("start skiff up");
        self.wait_ready();
    }

    /// `skiff <arguments>` for this cluster, in its namespace.
    pub fn skiff(&self, arguments: &[&str]) -> Command {
        let mut command = self.namespace.command(&self.executable);
        command.args(arguments).env("SKIFF_DATA_DIR", &self.directory);
        command
    }

    /// Loads image archives into every node.
    ///
    /// # Panics
    /// When an archive is refused.
    pub fn import(&self, archives: &[PathBuf]) {
        let imports = (0..self.nodes()).map(|index| {
            let mut command = self.node(index).command(&self.executable);
            command.args(["image", "import", "--data-dir"]).arg(self.node_directory(index));
            command.args(archives).stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().expect("start skiff image import")
        });
        for import in imports.collect::<Vec<_>>() {
            let output = import.wait_with_output().expect("wait for skiff image import");
            assert!(output.status.success(), "skiff image import: {}", text(&output.stderr));
        }
    }

    /// A kubectl command for this cluster, in its namespace.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        self.kubectl_of("kubectl", arguments)
    }

    /// As [`Cluster::kubectl_command`] with another executable, such as an older kubectl.
    pub fn kubectl_of(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.namespace.command(program);
        command
            .args(arguments)
            .env("KUBECONFIG", self.directory.join("admin.kubeconfig"))
            .env("HOME", &self.directory);
        command
    }

    /// Runs kubectl and returns what it printed, without the last line break.
    ///
    /// # Errors
    /// What kubectl said on standard error.
    pub fn try_kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        result(arguments, self.kubectl_command(arguments).output().context("start kubectl")?)
    }

    /// As [`Cluster::try_kubectl`].
    ///
    /// # Panics
    /// With kubectl's message when it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Runs `kubectl apply -f -` on `manifest`.
    ///
    /// # Errors
    /// What kubectl said on standard error.
    pub fn apply(&self, manifest: &str) -> anyhow::Result<String> {
        use std::io::Write;
        let arguments = ["apply", "-f", "-"];
        let mut child = self
            .kubectl_command(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start kubectl")?;
        child.stdin.take().context("kubectl has no input")?.write_all(manifest.as_bytes())?;
        result(&arguments, child.wait_with_output().context("wait for kubectl")?)
    }

    /// Stops the cluster as a user does, and forgets the process.
    ///
    /// # Errors
    /// What `skiff down` said.
    pub fn down(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        self.stop_agents();
        let output =
            self.skiff(&[&["down"], arguments].concat()).output().context("start skiff down")?;
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        ensure!(output.status.success(), "skiff down: {}", text(&output.stderr));
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_end("skiff up", &self.log());
        }
        if let Err(error) = self.down(&["--purge"]) {
            eprintln!("clean up a cluster: {error:#}");
        }
    }
}

fn result(arguments: &[&str], output: Output) -> anyhow::Result<String> {
    ensure!(
        output.status.success(),
        "kubectl {}: {}",
        arguments.join(" "),
        text(&output.stderr).trim()
    );
    Ok(text(&output.stdout).trim_end().to_owned())
}

/// Prints the end of a log for whoever finds out why a test failed.
pub(crate) fn print_end(of: &str, log: &str) {
    let tail: Vec<&str> = log.lines().rev().take(60).collect();
    eprintln!("end of the log of {of}:");
    tail.into_iter().rev().for_each(|line| eprintln!("  {line}"));
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
