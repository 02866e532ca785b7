//! One process a data directory: the lock that ensures it, and the description others read.
//!
//! The lock is the kernel's (`flock`), so that it goes with the process however that ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::layout::Layout;

/// The layout of the data directory that this version writes and reads.
const FORMAT: u32 = 1;

const DAMAGED: &str =
    "instance.json in the data directory is damaged: remove it if skiff does not run";

/// What stays readable in descriptions of every format.
#[derive(Deserialize)]
struct Format {
    format: u32,
    #[serde(default)]
    version: String,
}

/// What the serving process says of itself, and what `down` needs when it has gone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Description {
    /// The data directory's format.
    pub(crate) format: u32,
    /// The version that wrote this.
    pub(crate) version: String,
    /// The serving process.
    pub(crate) pid: i32,
    /// What the process is.
    #[serde(default)]
    pub(crate) role: Role,
    /// The API server's URL for this machine.
    pub(crate) server: String,
    /// What the process makes of the machine where it runs a node.
    #[serde(flatten)]
    pub(crate) node: Option<NodeTraces>,
}

/// What a serving process is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Control plane and node.
    #[default]
    Up,
    /// Control plane.
    Server,
    /// Node.
    Agent,
}

/// What a node leaves in the kernel, and by which names.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeTraces {
    /// The node's name.
    pub(crate) node_name: String,
    /// The pod bridge.
    pub(crate) bridge: String,
    /// The nftables table.
    pub(crate) table: String,
    /// The pods' cgroup, below each controller's root.
    pub(crate) cgroup: String,
    /// The container runtime's socket where it is not skiff's own.
    pub(crate) runtime_socket: Option<std::path::PathBuf>,
    /// How image layers become root file systems.
    pub(crate) snapshotter: Option<String>,
}

impl Description {
    /// The format that this version writes.
    pub(crate) const fn format() -> u32 {
        FORMAT
    }
}

/// The right to serve a data directory, for as long as it lives.
pub(crate) struct Instance {
    file: Flock<File>,
}

impl Instance {
    /// Takes the data directory, which is made where it is missing.
    pub(crate) fn acquire(layout: &Layout) -> anyhow::Result<Self> {
        let root = layout.root();
        std::fs::create_dir_all(root).with_context(|| {
            format!(
                "data directory {} cannot be made: choose another with --data-dir",
                root.display()
            )
        })?;
        let path = layout.instance();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("data directory {} cannot be written to", root.display()))?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((mut file, _)) => return Err(taken(layout, parse(&mut file)?)),
        };
        let mut instance = Self { file };
        parse(&mut instance.file)?;
        Ok(instance)
    }

    /// Changes the description.
    pub(crate) fn update(&mut self, change: impl FnOnce(&mut Description)) -> anyhow::Result<()> {
        let mut description = parse(&mut self.file)?.context(DAMAGED)?;
        change(&mut description);
        self.describe(&description)
    }

    /// Writes the description.
    pub(crate) fn describe(&mut self, description: &Description) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(description).context("describe this instance")?;
        let mut write = || {
            // Over the old text before it is cut: a full disk must not cost `down` what it needs.
            self.file.rewind()?;
            self.file.write_all(text.as_bytes())?;
            self.file.set_len(text.len() as u64)?;
            self.file.sync_all()
        };
        write().context("write the description of this instance: is the disk full?")
    }
}

/// Fails when a process serves the data directory; leaves no trace, unlike [`Instance::acquire`].
pub(crate) fn refuse_second(layout: &Layout) -> anyhow::Result<()> {
    match find(layout) {
        Ok(Some((description, true))) => Err(taken(layout, Some(description))),
        // Whatever is wrong with the directory is found when it is taken.
        _ => Ok(()),
    }
}

fn taken(layout: &Layout, by: Option<Description>) -> anyhow::Error {
    let root = layout.root().display();
    match by {
        Some(other) => anyhow!(
            "skiff runs already in {root} as process {}: see `skiff status`, stop it with `skiff down`",
            other.pid
        ),
        None => anyhow!("another process is just taking {root}"),
    }
}

/// The last description written in a data directory, and whether its process still serves.
pub(crate) fn find(layout: &Layout) -> anyhow::Result<Option<(Description, bool)>> {
    let path = layout.instance();
    let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let description = parse(&mut file)?;
    let serving = Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err();
    Ok(description.map(|description| (description, serving)))
}

/// `None` for an empty file: a process took the directory and ended before it described itself.
fn parse(file: &mut File) -> anyhow::Result<Option<Description>> {
    let mut text = String::new();
    file.rewind()
        .and_then(|()| file.take(64 * 1024).read_to_string(&mut text))
        .context("read instance.json")?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let format: Format = first(&text)?;
    if format.format > FORMAT {
        bail!(
            "the data directory was written by skiff {} (format {}); this is skiff {} (format {FORMAT}): use the newer version",
            format.version,
            format.format,
            env!("CARGO_PKG_VERSION"),
        );
    }
    first(&text).map(Some)
}

/// What follows the first value is the end of a longer, older text that was not cut any more.
fn first<'a, T: Deserialize<'a>>(text: &'a str) -> anyhow::Result<T> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    values.next().context(DAMAGED)?.context(DAMAGED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(format: u32) -> Description {
        Description {
            format,
            version: "9.0.0".into(),
            pid: 1,
            role: Role::Up,
            server: "https://127.0.0.1:6443".into(),
            node: Some(NodeTraces {
                node_name: "n".into(),
                bridge: "skiff0".into(),
                table: "skiff".into(),
                cgroup: "kubepods".into(),
                runtime_socket: None,
                snapshotter: None,
            }),
        }
    }

    #[test]
    fn a_directory_has_one_master() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        let mut first = Instance::acquire(&layout).unwrap();
        first.describe(&description(FORMAT)).unwrap();
        let refused = Instance::acquire(&layout).err().unwrap().to_string();
        assert!(refused.contains("runs already"), "{refused}");
        assert!(find(&layout).unwrap().unwrap().1);
        drop(first);
        assert!(!find(&layout).unwrap().unwrap().1);
        Instance::acquire(&layout).unwrap();
    }

    #[test]
    fn descriptions_change_and_may_lack_a_node() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        let mut instance = Instance::acquire(&layout).unwrap();
        instance.describe(&description(FORMAT)).unwrap();
        let snapshotter = Some("overlayfs".to_owned());
        let set = |description: &mut Description| {
            description.node.as_mut().unwrap().snapshotter = snapshotter.clone();
        };
        instance.update(set).unwrap();
        let found = find(&layout).unwrap().unwrap().0;
        assert_eq!(found.node.unwrap().snapshotter, snapshotter);
        let server = Description { role: Role::Server, node: None, ..description(FORMAT) };
        instance.describe(&server).unwrap();
        assert!(find(&layout).unwrap().unwrap().0.node.is_none());
    }

    #[test]
    fn a_newer_format_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        Instance::acquire(&layout).unwrap().describe(&description(FORMAT + 1)).unwrap();
        let refused = Instance::acquire(&layout).err().unwrap().to_string();
        assert!(refused.contains("use the newer version"), "{refused}");
    }
}
