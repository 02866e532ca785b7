//! One machine of a lab: its network, its view of mounts, and programs that run on it.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use super::{LabError, Namespace, pin, view};

const NETWORK: &str = "net";
const VIEW: &str = "mnt";

/// A machine: a network namespace, and a view of mounts once it is asked for.
#[derive(Debug, Clone)]
pub struct Machine {
    directory: PathBuf,
    namespace: Namespace,
}

impl Machine {
    pub(super) fn open(directory: &Path) -> Result<Self, LabError> {
        let namespace = Namespace::open(&directory.join(NETWORK))?;
        Ok(Self { directory: directory.to_owned(), namespace })
    }

    /// Its network.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Gives the machine a view of mounts of its own, where it has none; `directory` holds the files of
    /// the places that it does not share with its host.
    ///
    /// # Errors
    /// When the kernel refuses: without root, or below a directory that cannot be written to.
    pub fn separate(&self, directory: &Path) -> Result<(), LabError> {
        fs::create_dir_all(directory).map_err(LabError::file("create", directory))?;
        let link = self.directory.join("places");
        match std::os::unix::fs::symlink(directory, &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(LabError::file("create", &link)(error));
            }
            _ => {}
        }
        view::open(&self.directory.join(VIEW), directory)
    }

    /// The file that stands for its view of mounts, where it has one of its own.
    pub fn view(&self) -> Option<PathBuf> {
        let path = self.directory.join(VIEW);
        pin::is_pinned(&path).then_some(path)
    }

    /// A command that runs on the machine: in its network and, where it has one, its view of mounts.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace.path().display()));
        if let Some(view) = self.view() {
            command.arg(format!("--mount={}", view.display()));
        }
        command.arg("--").arg(program);
        command
    }

    /// Lets the machine pass on packets of others: a router between its segments.
    ///
    /// # Errors
    /// When the settings cannot be written.
    pub fn forward(&self) -> Result<(), LabError> {
        self.namespace.run(|| {
            ["ipv4/ip_forward", "ipv6/conf/all/forwarding"].into_iter().try_for_each(|name| {
                let path = Path::new("/proc/sys/net").join(name);
                fs::write(&path, "1").map_err(LabError::file("write", &path))
            })
        })?
    }

    pub(super) fn remove(directory: &Path) -> Result<(), LabError> {
        let places = directory.join("places");
        let outcome =
            pin::release(&directory.join(VIEW)).and(pin::release(&directory.join(NETWORK)));
        view::remove(&places);
        let removed = match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(LabError::file("remove", directory)(error))
            }
            _ => Ok(()),
        };
        outcome.and(removed)
    }
}
