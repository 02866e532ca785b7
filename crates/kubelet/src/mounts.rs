//! Looking at and undoing mounts of pod directories. Knows nothing of pods.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, umount2};

/// Whether something is mounted exactly there.
pub(crate) fn is_mount_point(path: &Path) -> bool {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let path = path.to_string_lossy();
    text.lines().filter_map(|line| line.split(' ').nth(4)).any(|point| unescape(point) == path)
}

/// Undoes every mount below `dir`, innermost first.
pub(crate) fn unmount_below(dir: &Path) {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points: Vec<String> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .filter(|point| Path::new(point).starts_with(dir))
        .collect();
    for point in points.iter().rev() {
        let _ = umount2(point.as_str(), MntFlags::MNT_DETACH);
    }
}

/// Unmounts what is mounted below a directory and removes it, unless something stays mounted.
pub(crate) fn remove_tree(dir: &Path) -> std::io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    unmount_below(dir);
    let device = fs::symlink_metadata(dir)?.dev();
    remove_on_device(dir, device)
}

/// Removes a tree without ever crossing into another file system: what is mounted there belongs to somebody else.
fn remove_on_device(dir: &Path, device: u64) -> std::io::Result<()> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_dir() {
            if meta.dev() != device {
                return Err(std::io::Error::other(format!("{} is still mounted", path.display())));
            }
            remove_on_device(&path, device)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    fs::remove_dir(dir)
}

fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}
