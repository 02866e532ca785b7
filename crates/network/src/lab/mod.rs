//! Several machines on one: each a network namespace with its own view of the places that nodes must
//! not share, joined by virtual wires to segments whose links can be cut, made one-way, lossy or slow.
//!
//! Owns the kernel's half of a local cluster and of tests with many nodes. Everything is pinned below
//! one directory, so that it outlives the process that made it and the next one finds it again; what
//! runs on the machines is not known here.
//!
//! ```no_run
//! # fn main() -> Result<(), skiff_network::lab::LabError> {
//! use skiff_network::lab::{Fault, Interface, Lab};
//!
//! let lab = Lab::open("/run/example")?;
//! let lan = lab.segment("lan")?;
//! for (name, address) in [("a", "10.77.0.2/24"), ("b", "10.77.0.3/24")] {
//!     let machine = lab.machine(name)?;
//!     let address = address.parse().expect("an address");
//!     lan.attach(name, machine.namespace(), &Interface::new("eth0", address))?;
//! }
//! lan.set_fault("a", "b", Fault::Cut)?;
//! lan.heal()?;
//! lab.remove()?;
//! # Ok(()) }
//! ```

mod fault;
mod machine;
mod masquerade;
mod namespace;
mod pin;
mod segment;
#[cfg(test)]
mod tests;
mod view;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::errno::Errno;

use crate::{netlink::NetlinkError, nft::NftError};

pub use fault::{Fault, Faults};
pub use machine::Machine;
pub use masquerade::Masquerade;
pub use namespace::Namespace;
pub use segment::{Interface, Segment};

/// Where the pins of segments are, below a lab's directory.
const SEGMENTS: &str = "segments";
/// Where the pins of machines are, below a lab's directory.
const MACHINES: &str = "machines";
/// Names become those of devices, which have at most 15 bytes.
const NAME_BYTES: usize = 15;

/// Why a lab could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file or directory.
    #[error("{what} {}", path.display())]
    File {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A namespace or mount.
    #[error("{what}: {errno}")]
    Kernel {
        /// What was being done.
        what: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A device, address or route.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The rules that make links faulty.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// A name that cannot be a device's.
    #[error(
        "{0:?} cannot name a machine or segment: give 1 to {NAME_BYTES} letters, digits, '-' or '_'"
    )]
    Name(String),
}

impl LabError {
    fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    fn kernel(what: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let what = what.into();
        move |errno| Self::Kernel { what, errno }
    }
}

/// Machines and segments that belong together, pinned below one directory.
#[derive(Debug)]
pub struct Lab {
    directory: PathBuf,
}

impl Lab {
    /// The lab in `directory`, which is made where it is missing. Needs root.
    ///
    /// # Errors
    /// When the directory cannot be made or mounted on itself.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, LabError> {
        let directory = directory.into();
        fs::create_dir_all(&directory).map_err(LabError::file("create", &directory))?;
        pin::seclude(&directory)?;
        Ok(Self { directory })
    }

    /// The segment called `name`, made where it is missing.
    ///
    /// # Errors
    /// When the name is no device's, or the kernel refuses.
    pub fn segment(&self, name: &str) -> Result<Segment, LabError> {
        check_name(name)?;
        Segment::open(&self.directory.join(SEGMENTS).join(name))
    }

    /// The machine called `name`, made where it is missing.
    ///
    /// # Errors
    /// When the name is no device's, or the kernel refuses.
    pub fn machine(&self, name: &str) -> Result<Machine, LabError> {
        check_name(name)?;
        Machine::open(&self.directory.join(MACHINES).join(name))
    }

    /// Names of the machines that there are.
    pub fn machines(&self) -> Vec<String> {
        names(&self.directory.join(MACHINES))
    }

    /// Removes a machine with its wires. Processes that still run on it keep its namespaces until they
    /// end.
    ///
    /// # Errors
    /// The first failure; the rest is removed nevertheless.
    pub fn remove_machine(&self, name: &str) -> Result<(), LabError> {
        let mut outcome = Ok(());
        for segment in names(&self.directory.join(SEGMENTS)) {
            outcome = outcome.and(self.segment(&segment).and_then(|segment| segment.detach(name)));
        }
        outcome.and(Machine::remove(&self.directory.join(MACHINES).join(name)))
    }

    /// Removes everything. Processes that still run on the machines keep their namespaces until they
    /// end.
    ///
    /// # Errors
    /// The first failure; the rest is removed nevertheless.
    pub fn remove(self) -> Result<(), LabError> {
        let mut outcome = Ok(());
        for name in names(&self.directory.join(SEGMENTS)) {
            outcome = outcome.and(Segment::remove(&self.directory.join(SEGMENTS).join(name)));
        }
        for name in self.machines() {
            outcome = outcome.and(Machine::remove(&self.directory.join(MACHINES).join(name)));
        }
        outcome = outcome.and(pin::release(&self.directory));
        let removed = match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(LabError::file("remove", &self.directory)(error))
            }
            _ => Ok(()),
        };
        outcome.and(removed)
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

fn check_name(name: &str) -> Result<(), LabError> {
    let fits = (1..=NAME_BYTES).contains(&name.len());
    if fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
        Ok(())
    } else {
        Err(LabError::Name(name.to_owned()))
    }
}
