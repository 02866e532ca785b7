//! Finding and undoing mounts below a directory. Knows nothing of who made them.

use std::{fs, path::Path};

use nix::mount::{MntFlags, umount2};

/// Detaches every mount below `dir`, innermost first, and returns how many there were.
pub(super) fn unmount_below(dir: &Path) -> usize {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = mount_points(&text, dir);
    below.iter().filter(|point| umount2(point.as_str(), MntFlags::MNT_DETACH).is_ok()).count()
}

/// Mount points at or below `dir`, later mounts first.
fn mount_points(mountinfo: &str, dir: &Path) -> Vec<String> {
    let mut points: Vec<String> = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .filter(|point| Path::new(point).starts_with(dir))
        .collect();
    points.reverse();
    points
}

/// Undoes the kernel's octal escapes of blanks.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_mounts_below_a_directory_only() {
        let info = "22 1 0:21 / / rw - ext4 /dev/vda rw\n\
                    30 22 0:30 / /run/x rw - tmpfs tmpfs rw\n\
                    31 30 0:31 / /run/x/a\\040b rw - overlay overlay rw\n\
                    32 22 0:32 / /run/xy rw - tmpfs tmpfs rw\n";
        assert_eq!(mount_points(info, Path::new("/run/x")), ["/run/x/a b", "/run/x"]);
    }
}
