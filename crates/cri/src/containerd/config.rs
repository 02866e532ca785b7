//! containerd's configuration file, as text, from options. Knows nothing of processes; the only I/O is trying out
//! whether overlay mounts work.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Where a private containerd lives and what it is given.
#[derive(Debug, Clone)]
pub struct ContainerdOptions {
    /// The executable: a name looked up in `PATH`, or a path.
    pub binary: PathBuf,
    /// Persistent data: images, snapshots, metadata, configuration and log file.
    pub root: PathBuf,
    /// Data of this boot: socket, pid file, bundles. Keep it short: a socket's path has at most 107 bytes.
    pub run_dir: PathBuf,
    /// Name of the pause image; it must have been imported.
    pub sandbox_image: String,
    /// Directory of network plugins.
    pub cni_bin_dir: PathBuf,
    /// Directory of the network configuration.
    pub cni_conf_dir: PathBuf,
    /// Directory with a `hosts.toml` per registry.
    pub registry_dir: PathBuf,
    /// The snapshotter; `None` tries overlay and falls back.
    pub snapshotter: Option<Snapshotter>,
}

impl ContainerdOptions {
    /// Options with the usual places below `root` and `run_dir`.
    pub fn new(root: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        let (root, run_dir) = (root.into(), run_dir.into());
        Self {
            binary: "containerd".into(),
            sandbox_image: "skiff.local/pause:1".into(),
            cni_bin_dir: root.join("cni/bin"),
            cni_conf_dir: root.join("cni/conf"),
            registry_dir: root.join("registries"),
            snapshotter: None,
            root,
            run_dir,
        }
    }

    /// Socket of the CRI and of containerd's own API.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("containerd.sock")
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.root.join("containerd.log")
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        self.run_dir.join("containerd.pid")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.run_dir.join("state")
    }

    /// Where containerd keeps content and snapshots.
    pub(super) fn store(&self) -> PathBuf {
        self.root.join("store")
    }
}

/// How image layers become a container's root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snapshotter {
    /// Overlay mounts: fast, needs a file system below that supports them.
    Overlay,
    /// Plain copies: works everywhere.
    Native,
}

impl Snapshotter {
    /// containerd's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlayfs",
            Self::Native => "native",
        }
    }

    /// Tries an overlay mount in `dir` (overlay on overlay fails on many kernels) and falls back to copies.
    pub fn detect(dir: &Path) -> Self {
        let probe = dir.join(".overlay-probe");
        let works = try_overlay(&probe);
        let _ = fs::remove_dir_all(&probe);
        if works { Self::Overlay } else { Self::Native }
    }
}

fn try_overlay(probe: &Path) -> bool {
    let [lower, upper, work, merged] =
        ["lower", "upper", "work", "merged"].map(|name| probe.join(name));
    if [&lower, &upper, &work, &merged].iter().any(|dir| fs::create_dir_all(dir).is_err()) {
        return false;
    }
    let data = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    if mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(data.as_str()))
        .is_err()
    {
        return false;
    }
    let works = fs::write(merged.join("file"), b"x").is_ok();
    let _ = umount2(&merged, MntFlags::MNT_DETACH);
    works
}

/// Plugins skiff has no use for; leaving them out saves memory and start-up time.
const DISABLED: &[&str] = &[
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.monitor.v1.cgroups",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
];

/// The configuration file (version 2, containerd 1.6 and 1.7).
pub(super) fn render(options: &ContainerdOptions, snapshotter: Snapshotter) -> String {
    let mut text = String::new();
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    let runc = format!("{cri}.containerd.runtimes.runc");
    let disabled = DISABLED.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
    // `restrict_oom_score_adj` lets containers start without CAP_SYS_RESOURCE; network namespaces live in the state
    // directory so that two nodes on one machine never mix theirs.
    let _ = write!(
        text,
        r#"# Written by skiff at every start; changes are lost.
version = 2
root = {root}
state = {state}
disabled_plugins = [{disabled}]

[grpc]
address = {socket}
max_recv_message_size = 16777216
max_send_message_size = 16777216

[debug]
level = "warn"

[{cri}]
sandbox_image = {sandbox_image}
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
stats_collect_period = 60
max_concurrent_downloads = 3

[{cri}.cni]
bin_dir = {cni_bin}
conf_dir = {cni_conf}
max_conf_num = 1

[{cri}.containerd]
snapshotter = {snapshotter}
default_runtime_name = "runc"

[{runc}]
runtime_type = "io.containerd.runc.v2"

[{runc}.options]
SystemdCgroup = false

[{cri}.registry]
config_path = {registry}

[plugins."io.containerd.internal.v1.opt"]
path = {opt}
"#,
        root = quote_path(&options.store()),
        state = quote_path(&options.state()),
        socket = quote_path(&options.socket()),
        sandbox_image = quote(&options.sandbox_image),
        cni_bin = quote_path(&options.cni_bin_dir),
        cni_conf = quote_path(&options.cni_conf_dir),
        snapshotter = quote(snapshotter.name()),
        registry = quote_path(&options.registry_dir),
        opt = quote_path(&options.root.join("opt")),
    );
    text
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn quote_path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_what_the_node_needs() {
        let text = render(&ContainerdOptions::new("/var/lib/x", "/run/x"), Snapshotter::Native);
        for line in [
            "root = \"/var/lib/x/store\"",
            "state = \"/run/x/state\"",
            "address = \"/run/x/containerd.sock\"",
            "restrict_oom_score_adj = true",
            "snapshotter = \"native\"",
            "SystemdCgroup = false",
            "sandbox_image = \"skiff.local/pause:1\"",
            "config_path = \"/var/lib/x/registries\"",
        ] {
            assert!(text.lines().any(|l| l == line), "missing {line} in\n{text}");
        }
    }

    #[test]
    fn quotes_odd_paths() {
        assert_eq!(quote("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000A\"");
    }
}
