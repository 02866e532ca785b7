//! Parts of volumes mounted into containers. The part is opened beneath the volume, so that no link leads out of it,
//! and bound to a place that only the kubelet writes, so that it cannot be exchanged before the runtime mounts it.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    mount::{MsFlags, mount},
    sys::stat::Mode,
};

use crate::mounts::is_mount_point;

/// The bound parts of one container.
pub(crate) struct SubPaths {
    /// Directory of the bind mounts.
    dir: PathBuf,
}

impl SubPaths {
    /// Parts are bound below `pod_dir`.
    pub(crate) fn new(pod_dir: &Path, container: &str) -> Self {
        Self { dir: pod_dir.join("volume-subpaths").join(container) }
    }

    /// Binds `sub_path` of the volume at `volume` and returns where. A missing part becomes a directory.
    pub(crate) fn bind(&self, index: usize, volume: &Path, sub_path: &str) -> io::Result<PathBuf> {
        let refused = |message| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        if Path::new(sub_path).is_absolute() {
            return refused(format!("error SubPath `{sub_path}` must not be an absolute path"));
        }
        if sub_path.split('/').any(|part| part == "..") {
            return refused(format!(
                "unable to provision SubPath `{sub_path}`: must not contain '..'"
            ));
        }
        let part = match open_beneath(volume, sub_path) {
            Err(nix::errno::Errno::ENOENT) => {
                make_beneath(volume, sub_path)?;
                open_beneath(volume, sub_path)?
            }
            other => other?,
        };
        let source = PathBuf::from(format!("/proc/self/fd/{}", part.as_raw_fd()));
        let target = self.dir.join(index.to_string());
        fs::create_dir_all(&self.dir)?;
        if is_mount_point(&target) {
            nix::mount::umount2(&target, nix::mount::MntFlags::MNT_DETACH)?;
        }
        if fs::metadata(&source)?.is_dir() {
            fs::create_dir_all(&target)?;
        } else if !target.exists() {
            fs::File::create(&target)?;
        }
        mount(
            Some(&source),
            &target,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )?;
        Ok(target)
    }
}

fn volume_fd(volume: &Path) -> nix::Result<OwnedFd> {
    open(volume, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

fn open_beneath(volume: &Path, sub_path: &str) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(volume_fd(volume)?, sub_path, how)
}

/// Makes the directories of a missing part one by one, never through a link that leads out.
fn make_beneath(volume: &Path, sub_path: &str) -> io::Result<()> {
    let mut made = String::new();
    for component in sub_path.split('/').filter(|c| !c.is_empty() && *c != ".") {
        if !made.is_empty() {
            made.push('/');
        }
        let parent = if made.is_empty() {
            volume_fd(volume)?
        } else {
            open_beneath(volume, made.trim_end_matches('/'))?
        };
        made.push_str(component);
        match nix::sys::stat::mkdirat(&parent, component, Mode::from_bits_truncate(0o750)) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
