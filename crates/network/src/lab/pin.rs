//! Files that keep namespaces alive: a namespace lasts as long as something is mounted from it.
//!
//! Knows nothing of what the namespaces are for.

use std::{
    fs::{self, File},
    path::Path,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{NSFS_MAGIC, statfs},
};

use super::LabError;

/// Mounts a directory on itself and keeps the mounts below it to itself: the kernel pins mount
/// namespaces nowhere else, and copies would keep what is removed here alive.
pub(super) fn seclude(directory: &Path) -> Result<(), LabError> {
    if is_mount_point(directory) {
        return Ok(());
    }
    let failed = || LabError::kernel(format!("mount {} on itself", directory.display()));
    mount(Some(directory), directory, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(failed())?;
    mount(None::<&str>, directory, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(failed())
}

/// Whether a namespace is pinned at `path`.
pub(super) fn is_pinned(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}

/// Pins the namespace that the file `from` of /proc stands for at `path`.
pub(super) fn pin(from: &Path, path: &Path) -> Result<(), LabError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(LabError::file("create", parent))?;
    }
    File::create(path).map_err(LabError::file("create", path))?;
    mount(Some(from), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(LabError::kernel(format!("pin a namespace at {}", path.display())))
}

/// Undoes the mount at `path`, if there is one.
pub(super) fn release(path: &Path) -> Result<(), LabError> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(LabError::kernel(format!("unmount {}", path.display()))(errno)),
    }
}

/// Undoes every namespace's pin in the calling thread's view of mounts, which is a copy of another.
pub(super) fn release_copies() -> Result<(), LabError> {
    let path = Path::new("/proc/thread-self/mountinfo");
    let table = fs::read_to_string(path).map_err(LabError::file("read", path))?;
    table.lines().filter_map(pinned).try_for_each(|point| release(Path::new(&point)))
}

fn is_mount_point(directory: &Path) -> bool {
    let path = directory.to_string_lossy();
    fs::read_to_string("/proc/thread-self/mountinfo")
        .is_ok_and(|table| table.lines().any(|line| line.split(' ').nth(4) == Some(&path)))
}

/// The mount point in a line of mountinfo that is a namespace's pin. Pins of interest have no blanks in
/// their paths.
fn pinned(line: &str) -> Option<String> {
    let (mount, system) = line.split_once(" - ")?;
    system.starts_with("nsfs ").then(|| mount.split(' ').nth(4).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pins_are_found() {
        let pin = "41 22 0:4 net:[4026532209] /run/lab/machines/a/net rw shared:9 - nsfs nsfs rw";
        assert_eq!(pinned(pin).as_deref(), Some("/run/lab/machines/a/net"));
        assert_eq!(pinned("22 1 0:21 / /run rw - tmpfs tmpfs rw"), None);
        assert_eq!(pinned(""), None);
    }
}
