//! The nodes of a cluster under test beyond its first: agents on machines of their own, which are
//! killed, restarted, switched off and cut off.
//!
//! ```no_run
//! use skiff_testkit::{Cluster, ClusterOptions, Fault};
//!
//! let options = ClusterOptions { nodes: 3, ..ClusterOptions::default() };
//! let mut cluster = Cluster::start_with("target/debug/skiff", options);
//! // `skiff up` runs on node-1, `skiff agent` on node-2 and node-3; all are Ready now.
//! cluster.kubectl(&["get", "nodes"]);
//! cluster.cut("node-1", "node-2");
//! cluster.site().fault("node-2", "node-3", Fault::Lossy(20));
//! cluster.heal();
//! cluster.node(1).command("curl").arg("http://10.77.0.4:30080/").status().unwrap();
//! cluster.outside().run(|| std::net::TcpStream::connect("10.77.0.3:30080")).join().unwrap().unwrap();
//! cluster.kill_agent(2); // its pods go on
//! cluster.start_agent(2);
//! cluster.switch_off(2); // with all its pods, without a word
//! cluster.switch_on(2);
//! cluster.wait_ready();
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::{READY_TIMEOUT, print_end, text};
use crate::{Cluster, Machine, Site, eventually_ok};

/// One node beyond the first.
pub(crate) struct Agent {
    pub(crate) machine: Machine,
    pub(crate) directory: PathBuf,
    process: Option<Child>,
}

impl Agent {
    pub(crate) fn new(machine: Machine, directory: PathBuf) -> Self {
        Self { machine, directory, process: None }
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("test.log")
    }

    /// Where its pods' cgroups are, below that of the cluster's.
    fn cgroup(&self, cluster: &str) -> String {
        format!("{cluster}-{}", self.machine.name())
    }
}

impl Cluster {
    /// The machine of node `index`, from 0.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn node(&self, index: usize) -> &Machine {
        match index {
            0 => self.namespace(),
            _ => &self.agent(index).machine,
        }
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        1 + self.agents.len()
    }

    /// The machine that is no part of the cluster.
    pub fn outside(&self) -> &Machine {
        &self.outside
    }

    /// All machines and what is between them.
    pub fn site(&self) -> &Arc<Site> {
        self.namespace().site()
    }

    /// Cuts two machines off from each other; neither notices anything but silence.
    pub fn cut(&self, a: &str, b: &str) {
        self.site().fault(a, b, crate::Fault::Cut);
    }

    /// Ends every fault of the network.
    pub fn heal(&self) {
        self.site().heal();
    }

    /// The data directory of node `index`.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn node_directory(&self, index: usize) -> &Path {
        match index {
            0 => self.directory(),
            _ => &self.agent(index).directory,
        }
    }

    /// What the agent of node `index` has printed so far.
    ///
    /// # Panics
    /// When there is none.
    pub fn agent_log(&self, index: usize) -> String {
        std::fs::read_to_string(self.agent(index).log_path()).unwrap_or_default()
    }

    /// The process of the agent of node `index`, if it runs.
    ///
    /// # Panics
    /// When there is none.
    pub fn agent_pid(&self, index: usize) -> Option<u32> {
        self.agent(index).process.as_ref().map(Child::id)
    }

    /// Starts the agent of node `index`, which is node-(index + 1), without waiting for anything.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_agent(&mut self, index: usize) {
        let token = self.token.get_or_init(|| self.join_token()).clone();
        let server = format!("https://{}", SocketAddr::new(self.namespace().address(), 6443));
        let (executable, cgroup) = (self.executable.clone(), self.cgroup().to_owned());
        let arguments = self.options.agent_arguments.clone();
        let environment = self.options.environment.clone();
        let agent = self.agent_mut(index);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(agent.log_path())
            .expect("open the agent's log");
        let mut command = agent.machine.command(executable);
        command
            .args(["agent", "--server", &server, "--token", &token])
            .args(["--node-name", agent.machine.name(), "--cgroup", &agent.cgroup(&cgroup)])
            .arg("--data-dir")
            .arg(&agent.directory)
            .args(arguments)
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log);
        agent.process = Some(command.spawn().expect("start skiff agent"));
    }

    /// Kills the agent of node `index`; its pods go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_agent(&mut self, index: usize) {
        let mut process = self.agent_mut(index).process.take().expect("the agent runs");
        process.kill().expect("kill an agent");
        process.wait().expect("wait for an agent");
    }

    /// Switches node `index` off: everything on it ends at once, and nobody is told.
    ///
    /// # Panics
    /// When the machine cannot be removed.
    pub fn switch_off(&mut self, index: usize) {
        let cgroup = self.agent(index).cgroup(self.cgroup());
        let agent = self.agent(index);
        self.site().set_link(agent.machine.name(), false);
        kill_all(&agent.machine, &cgroup);
        let agent = self.agent_mut(index);
        if let Some(mut process) = agent.process.take() {
            let _ = process.wait();
        }
        let name = agent.machine.name().to_owned();
        self.site().remove(&name).expect("remove a machine");
    }

    /// Switches node `index` on again: a machine that has only its disk.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn switch_on(&mut self, index: usize) {
        let number = u8::try_from(index + 1).expect("few nodes");
        let name = self.agent(index).machine.name().to_owned();
        let site = self.namespace().site().clone();
        let agent = self.agent_mut(index);
        agent.machine = site.machine(&name, number).expect("make a machine");
        agent.machine.separate(&agent.directory.join("places")).expect("make a view");
        self.start_agent(index);
    }

    /// A token with which one more node may join.
    ///
    /// # Panics
    /// When the server makes none.
    pub fn join_token(&self) -> String {
        eventually_ok("a join token", READY_TIMEOUT, || {
            let output = self.skiff(&["token", "create"]).output().context("start skiff token")?;
            ensure!(output.status.success(), "skiff token create: {}", text(&output.stderr));
            let printed = text(&output.stdout);
            let mut words = printed.split_whitespace().skip_while(|word| *word != "--token");
            words.nth(1).map(str::to_owned).with_context(|| format!("no token in {printed:?}"))
        })
    }

    /// Makes a machine for one more node and starts its agent.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn add_node(&mut self) {
        self.prepare_node().expect("make a machine");
        self.start_agent(self.nodes() - 1);
    }

    /// Makes a machine for one more node, which [`Cluster::start_agent`] starts.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn add_machine(&mut self) {
        self.prepare_node().expect("make a machine");
    }

    /// Everything of one more node but its agent.
    pub(crate) fn prepare_node(&mut self) -> anyhow::Result<()> {
        let number = u8::try_from(self.nodes() + 1).context("too many nodes")?;
        let machine = self.namespace().site().machine(&format!("node-{number}"), number)?;
        let directory = self.directory().join(machine.name());
        std::fs::create_dir_all(&directory).context("make a data directory")?;
        machine.separate(&directory.join("places"))?;
        self.agents.push(Agent::new(machine, directory));
        Ok(())
    }

    /// Stops every agent and its pods as a user does.
    pub(crate) fn stop_agents(&mut self) {
        let (executable, cgroup) = (self.executable.clone(), self.cgroup().to_owned());
        let down = |agent: &Agent| {
            let mut command = agent.machine.command(&executable);
            command.arg("down").arg("--data-dir").arg(&agent.directory);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
        };
        // All at once: most of the time goes by in waiting for containers to end.
        let downs: Vec<_> = self.agents.iter().map(down).collect();
        for (agent, down) in self.agents.iter_mut().zip(downs) {
            if std::thread::panicking() {
                let log = std::fs::read_to_string(agent.log_path()).unwrap_or_default();
                print_end(&format!("skiff agent on {}", agent.machine.name()), &log);
            }
            match down.and_then(Child::wait_with_output) {
                Ok(output) if output.status.success() => {}
                Ok(output) => eprintln!("skiff down on a node: {}", text(&output.stderr)),
                Err(error) => eprintln!("run skiff down: {error}"),
            }
            kill_all(&agent.machine, &agent.cgroup(&cgroup));
            if let Some(mut process) = agent.process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }

    fn agent(&self, index: usize) -> &Agent {
        &self.agents[index.checked_sub(1).expect("the first node has no agent")]
    }

    fn agent_mut(&mut self, index: usize) -> &mut Agent {
        &mut self.agents[index.checked_sub(1).expect("the first node has no agent")]
    }
}

/// Kills what runs on a machine: all in its view of mounts (agent, runtime, shims), and all in the
/// cgroups of its pods. Repeated until nothing is left, because processes make others.
fn kill_all(machine: &Machine, cgroup: &str) {
    let view = machine.view().and_then(|path| std::fs::metadata(path).ok());
    let view = view.map(|found| std::os::unix::fs::MetadataExt::ino(&found));
    let of_machine = |pid: &str| {
        let inode = std::fs::metadata(format!("/proc/{pid}/ns/mnt"))
            .ok()
            .map(|found| std::os::unix::fs::MetadataExt::ino(&found));
        let inside = view.is_some() && inode == view;
        inside
            || std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| {
                groups.lines().any(|line| {
                    line.rsplit(':').next().is_some_and(|path| {
                        path.trim_start_matches('/').split('/').next() == Some(cgroup)
                    })
                })
            })
    };
    for _ in 0..100 {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids: Vec<i32> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.parse::<i32>().is_ok() && is_alive(name) && of_machine(name))
            .filter_map(|name| name.parse().ok())
            .collect();
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// A zombie has ended; whoever waits for it is told.
fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
    })
}
