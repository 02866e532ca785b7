//! The cgroups of pods: `<root>/{,burstable/,besteffort/}pod<uid>` in every hierarchy of cgroup v1, v2 or both.
//! Knows nothing of containers; the runtime makes theirs below a pod's.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1 as api;
use tracing::{debug, warn};

use crate::resources::{self, Qos};

const MOUNT: &str = "/sys/fs/cgroup";
/// How long killed processes may take to leave a group.
const LINGER: Duration = Duration::from_secs(2);
/// Controllers of v1 that pods get a group in.
const V1: &[&str] = &["cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "devices", "freezer"];
/// Controllers of v2 that are passed on to pods.
const V2: &[&str] = &["cpuset", "cpu", "io", "memory", "pids"];

/// How the host's control groups are laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Layout {
    /// One hierarchy for all controllers.
    Unified,
    /// A hierarchy for each controller (with or without an unused v2 beside them): the directories that exist.
    Split(Vec<(String, PathBuf)>),
}

/// The pods' control groups.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    root: String,
    layout: Layout,
}

impl Cgroups {
    /// Looks at the host and makes the root and the class groups. `root` is a path such as `/kubepods`.
    pub(crate) fn prepare(root: &str) -> io::Result<Self> {
        let root = format!("/{}", root.trim_matches('/'));
        let mount = Path::new(MOUNT);
        let layout = if mount.join("cgroup.controllers").exists() {
            Layout::Unified
        } else {
            let mut seen = std::collections::HashSet::new();
            let found =
                V1.iter().map(|c| ((*c).to_owned(), mount.join(c))).filter(|(_, dir)| dir.exists());
            // cpu and cpuacct are often one hierarchy under two names.
            Layout::Split(
                found.filter(|(_, dir)| seen.insert(fs::canonicalize(dir).ok())).collect(),
            )
        };
        let cgroups = Self { root: root.clone(), layout };
        for group in [root.clone(), format!("{root}/burstable"), format!("{root}/besteffort")] {
            cgroups.make(&group)?;
        }
        cgroups.set_shares(&format!("{root}/besteffort"), resources::shares(0));
        Ok(cgroups)
    }

    /// The group of a pod, as the runtime takes it.
    pub(crate) fn pod_path(&self, pod: &api::Pod) -> String {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let class = match resources::qos_class(pod) {
            Qos::Guaranteed => "",
            Qos::Burstable => "/burstable",
            Qos::BestEffort => "/besteffort",
        };
        format!("{}{class}/pod{uid}", self.root)
    }

    /// Makes a pod's group with its limits.
    pub(crate) fn create_pod(&self, pod: &api::Pod, pids: Option<u64>) -> io::Result<()> {
        let path = self.pod_path(pod);
        self.make(&path)?;
        let request = resources::pod_request(pod, "cpu").milli_value();
        self.set_shares(&path, resources::shares(request));
        if let Some(limit) = resources::pod_limit(pod, "cpu") {
            self.set_quota(&path, resources::quota(limit.milli_value()));
        }
        if let Some(limit) = resources::pod_limit(pod, "memory") {
            self.set(
                "memory",
                &path,
                ("memory.limit_in_bytes", "memory.max"),
                &limit.value().to_string(),
            );
        }
        if let Some(pids) = pids {
            self.set("pids", &path, ("pids.max", "pids.max"), &pids.to_string());
        }
        Ok(())
    }

    /// Removes a pod's group, with whatever empty groups the runtime left in it. Blocks while its last processes are
    /// on their way out.
    pub(crate) fn remove_pod(&self, pod: &api::Pod) {
        let path = self.pod_path(pod);
        for dir in hierarchies().into_iter().map(|h| h.join(path.trim_start_matches('/'))) {
            if let Err(error) = remove_patiently(&dir) {
                debug!(dir = %dir.display(), %error, "control group could not be removed");
            }
        }
    }

    /// CPU time used, nanoseconds, and memory in bytes (usage, working set) of a group; zero where unknown.
    pub(crate) fn usage(&self, path: &str) -> (u64, u64, u64) {
        let number = |text: io::Result<String>| {
            text.ok().and_then(|t| t.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let field = |text: &str, name: &str| {
            text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let relative = path.trim_start_matches('/');
        match &self.layout {
            Layout::Unified => {
                let dir = Path::new(MOUNT).join(relative);
                let cpu = fs::read_to_string(dir.join("cpu.stat")).unwrap_or_default();
                let memory = number(fs::read_to_string(dir.join("memory.current")));
                let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
                let inactive = field(&stat, "inactive_file ");
                (field(&cpu, "usage_usec ") * 1000, memory, memory.saturating_sub(inactive))
            }
            Layout::Split(_) => {
                let dir = |controller: &str| Path::new(MOUNT).join(controller).join(relative);
                let cpu = number(fs::read_to_string(dir("cpuacct").join("cpuacct.usage")));
                let memory =
                    number(fs::read_to_string(dir("memory").join("memory.usage_in_bytes")));
                let stat =
                    fs::read_to_string(dir("memory").join("memory.stat")).unwrap_or_default();
                let inactive = field(&stat, "total_inactive_file ");
                (cpu, memory, memory.saturating_sub(inactive))
            }
        }
    }

    fn make(&self, path: &str) -> io::Result<()> {
        match &self.layout {
            Layout::Unified => make_unified(path),
            Layout::Split(controllers) => {
                for (name, dir) in controllers {
                    let target = dir.join(path.trim_start_matches('/'));
                    make_split(name, dir, &target)?;
                }
                Ok(())
            }
        }
    }

    fn set_shares(&self, path: &str, shares: i64) {
        let value = match self.layout {
            Layout::Unified => resources::weight(shares),
            Layout::Split(_) => shares,
        };
        self.set("cpu", path, ("cpu.shares", "cpu.weight"), &value.to_string());
    }

    fn set_quota(&self, path: &str, quota: i64) {
        match self.layout {
            Layout::Unified => self.set("cpu", path, ("", "cpu.max"), &format!("{quota} 100000")),
            Layout::Split(_) => {
                self.set("cpu", path, ("cpu.cfs_period_us", ""), "100000");
                self.set("cpu", path, ("cpu.cfs_quota_us", ""), &quota.to_string());
            }
        }
    }

    fn set(&self, controller: &str, path: &str, (v1, v2): (&str, &str), value: &str) {
        let relative = path.trim_start_matches('/');
        let file = match self.layout {
            Layout::Unified => Path::new(MOUNT).join(relative).join(v2),
            Layout::Split(_) => Path::new(MOUNT).join(controller).join(relative).join(v1),
        };
        if let Err(error) = fs::write(&file, value) {
            debug!(file = %file.display(), value, %error, "control group setting was refused");
        }
    }
}

/// Makes a group of v2, passing controllers on at every level above it.
fn make_unified(path: &str) -> io::Result<()> {
    let mut dir = PathBuf::from(MOUNT);
    for part in path.split('/').filter(|p| !p.is_empty()) {
        let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
        for controller in V2.iter().filter(|c| available.split_whitespace().any(|a| a == **c)) {
            let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        dir.push(part);
        make_dir(&dir)?;
    }
    Ok(())
}

/// Makes a group of v1; a new cpuset starts with its parent's processors and memory, for it is empty otherwise.
fn make_split(controller: &str, root: &Path, target: &Path) -> io::Result<()> {
    let mut dir = root.to_owned();
    for part in target.strip_prefix(root).unwrap_or(Path::new("")).components() {
        let parent = dir.clone();
        dir.push(part);
        make_dir(&dir)?;
        if controller == "cpuset" {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let own = fs::read_to_string(dir.join(file)).unwrap_or_default();
                if own.trim().is_empty() {
                    let inherited = fs::read_to_string(parent.join(file)).unwrap_or_default();
                    let _ = fs::write(dir.join(file), inherited.trim());
                }
            }
        }
        if controller == "memory" {
            let _ = fs::write(dir.join("memory.use_hierarchy"), "1");
        }
    }
    Ok(())
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Removes a group and the groups below it; the kernel refuses while processes are in one.
fn remove(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

/// Removes a group that may still hold processes that have been killed but have not quite gone.
fn remove_patiently(dir: &Path) -> io::Result<()> {
    let deadline = Instant::now() + LINGER;
    loop {
        match remove(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

/// Every hierarchy that is mounted, those without controllers included: the runtime makes groups in all of them.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let cgroup = |line: &&str| matches!(line.split(' ').nth(2), Some("cgroup" | "cgroup2"));
    let points = mounts.lines().filter(cgroup).filter_map(|line| line.split(' ').nth(1));
    let mut found: Vec<PathBuf> =
        points.map(PathBuf::from).filter(|dir| dir.starts_with(MOUNT)).collect();
    found.sort();
    found.dedup();
    found
}

/// Removes the groups of a node that is gone for good: everything below `root`, and `root`.
pub(crate) fn remove_all(root: &str) {
    let relative = root.trim_matches('/');
    if relative.is_empty() {
        return;
    }
    for dir in hierarchies().into_iter().map(|h| h.join(relative)).filter(|dir| dir.exists()) {
        if let Err(error) = remove_patiently(&dir) {
            warn!(dir = %dir.display(), %error, "control group could not be removed");
        }
    }
}
