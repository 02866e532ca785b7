//! Questions about the kernel and our rights in it.

use std::fs;
use std::path::Path;

use super::{Finding, Verdict};

/// The oldest kernel that skiff is tested on.
const OLDEST: (u32, u32) = (5, 15);

pub(super) fn root() -> Finding {
    let verdict = if nix::unistd::geteuid().is_root() {
        Verdict::Good("running as root".into())
    } else {
        Verdict::Bad(
            "skiff must run as root to make containers and networks: run it with sudo".into(),
        )
    };
    Finding { what: "user", verdict }
}

pub(super) fn version() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let verdict = match parse_release(&release) {
        Some(found) if found >= OLDEST => Verdict::Good(format!("Linux {}", release.trim())),
        Some(_) => Verdict::Poor(format!(
            "Linux {} is older than 5.15, the oldest that is tested",
            release.trim()
        )),
        None => {
            Verdict::Poor(format!("cannot tell the version of Linux from {:?}", release.trim()))
        }
    };
    Finding { what: "kernel", verdict }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn cgroups() -> Finding {
    let verdict = match fs::read_to_string("/proc/self/mounts") {
        Ok(mounts) => judge_cgroups(&mounts, |path| fs::read_to_string(path).unwrap_or_default()),
        Err(error) => {
            Verdict::Bad(format!("/proc/self/mounts cannot be read ({error}): mount /proc"))
        }
    };
    Finding { what: "cgroups", verdict }
}

/// The controllers that containers need, in whichever version of cgroups they are mounted.
fn judge_cgroups(mounts: &str, read: impl Fn(&Path) -> String) -> Verdict {
    const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];
    let mut found: Vec<String> = Vec::new();
    let mut versions = Vec::new();
    for mount in mounts.lines() {
        let fields: Vec<&str> = mount.split_whitespace().collect();
        let [_, path, kind, options, ..] = fields.as_slice() else { continue };
        match *kind {
            "cgroup" => {
                versions.push("v1");
                found.extend(options.split(',').map(str::to_owned));
            }
            "cgroup2" => {
                versions.push("v2");
                let controllers = read(&Path::new(path).join("cgroup.controllers"));
                found.extend(controllers.split_whitespace().map(str::to_owned));
            }
            _ => {}
        }
    }
    versions.sort_unstable();
    versions.dedup();
    let missing: Vec<&str> =
        NEEDED.into_iter().filter(|name| !found.iter().any(|f| f == name)).collect();
    if missing.is_empty() {
        Verdict::Good(format!("{} with cpu, memory, pids", versions.join(" and ")))
    } else {
        Verdict::Bad(format!(
            "no cgroup controller for {}: mount cgroup2 at /sys/fs/cgroup, and boot without cgroup_disable",
            missing.join(", ")
        ))
    }
}

pub(super) fn namespaces() -> Finding {
    let missing: Vec<&str> = ["net", "mnt", "pid", "uts", "ipc"]
        .into_iter()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect();
    let verdict = if missing.is_empty() {
        Verdict::Good("net, mnt, pid, uts, ipc".into())
    } else {
        Verdict::Bad(format!("the kernel lacks namespaces of kind {}", missing.join(", ")))
    };
    Finding { what: "namespaces", verdict }
}

pub(super) fn capabilities() -> Finding {
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_NET_ADMIN: u32 = 12;
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| effective & (1 << bit) != 0;
    let verdict = if !has(CAP_SYS_ADMIN) || !has(CAP_NET_ADMIN) {
        Verdict::Bad("CAP_SYS_ADMIN and CAP_NET_ADMIN are needed: run on the host or in a privileged container".into())
    } else if !has(CAP_SYS_RESOURCE) {
        Verdict::Poor(
            "without CAP_SYS_RESOURCE out-of-memory scores and limits stay as they are".into(),
        )
    } else {
        Verdict::Good("administration of system, network and resources".into())
    };
    Finding { what: "capabilities", verdict }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(parse_release("6.1.0-13-amd64\n"), Some((6, 1)));
        assert_eq!(parse_release("5.15.133.1-microsoft-standard-WSL2"), Some((5, 15)));
        assert_eq!(parse_release("custom"), None);
    }

    #[test]
    fn controllers_may_be_spread_over_versions() {
        let hybrid = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let verdict = judge_cgroups(hybrid, |path| {
            assert_eq!(path, Path::new("/sys/fs/cgroup/unified/cgroup.controllers"));
            "pids io\n".into()
        });
        assert!(matches!(verdict, Verdict::Good(text) if text.starts_with("v1 and v2")));
        let verdict = judge_cgroups(hybrid, |_| String::new());
        assert!(matches!(verdict, Verdict::Bad(text) if text.contains("for pids")));
    }
}
