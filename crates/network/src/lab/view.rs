//! A machine's own view of mounts: all files are shared with its host, except the places where nodes
//! keep what others must not see.
//!
//! What is mounted on the host appears in the view where the host's mounts are shared; what is mounted
//! in the view, such as volumes of pods, stays there and goes with it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::gettid,
};

use super::{LabError, pin};

/// Well-known places that programs on a node take for the node's own: network plugins, drivers and
/// log collectors find each other there.
const PRIVATE: &[&str] = &[
    "/etc/cni/net.d",
    "/opt/cni/bin",
    "/run/netns",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
];
/// Lists the directories that were made on the host to mount on.
const MADE: &str = "made";

/// Makes a view and pins it at `path`; the private places are below `directory`.
pub(super) fn open(path: &Path, directory: &Path) -> Result<(), LabError> {
    if pin::is_pinned(path) {
        return Ok(());
    }
    let places = prepare(directory)?;
    let (tell, told) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let _ = tell.send(unshared(&places).map(|()| gettid()));
            // The view ends with its only thread unless it has been pinned.
            let _ = released.recv();
        });
        let outcome = told.recv().unwrap_or_else(|_| {
            Err(LabError::Kernel { what: "make a view".into(), errno: nix::errno::Errno::ESRCH })
        });
        let pinned = outcome.and_then(|thread| {
            let from = format!("/proc/self/task/{thread}/ns/mnt");
            pin::pin(Path::new(&from), path)
        });
        drop(release);
        pinned
    })
}

/// Removes what [`open`] made on the host to mount on, where nobody has put anything into it.
pub(super) fn remove(directory: &Path) {
    let made = fs::read_to_string(directory.join(MADE)).unwrap_or_default();
    for place in made.lines().rev() {
        let _ = fs::remove_dir(place);
    }
}

/// Makes the private places and those they are mounted on; pairs of the former and the latter.
fn prepare(directory: &Path) -> Result<Vec<(PathBuf, PathBuf)>, LabError> {
    let list = directory.join(MADE);
    let mut made = fs::read_to_string(&list).unwrap_or_default();
    let mut places = Vec::new();
    for place in PRIVATE {
        let private = directory.join(place.trim_start_matches('/').replace('/', "-"));
        fs::create_dir_all(&private).map_err(LabError::file("create", &private))?;
        make_on_host(Path::new(place), &mut made)
            .map_err(LabError::file("create", Path::new(place)))?;
        places.push((private, PathBuf::from(place)));
    }
    fs::write(&list, made).map_err(LabError::file("write", &list))?;
    Ok(places)
}

/// Makes a directory with its parents and notes what was missing.
fn make_on_host(place: &Path, made: &mut String) -> io::Result<()> {
    if place.is_dir() {
        return Ok(());
    }
    if let Some(parent) = place.parent() {
        make_on_host(parent, made)?;
    }
    match fs::create_dir(place) {
        Ok(()) => {
            made.push_str(&place.to_string_lossy());
            made.push('\n');
            Ok(())
        }
        // Made by somebody else meanwhile, and theirs to remove.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives the calling thread a view of its own.
fn unshared(places: &[(PathBuf, PathBuf)]) -> Result<(), LabError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(LabError::kernel("make a view: are you root?"))?;
    let all = |flags, what: &str| {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | flags, None::<&str>)
            .map_err(LabError::kernel(what))
    };
    all(MsFlags::MS_SLAVE, "keep mounts of a view from its host")?;
    // Within the view mounts are shared, as volumes that pods mount for each other need.
    all(MsFlags::MS_SHARED, "share mounts within a view")?;
    pin::release_copies()?;
    for (private, place) in places {
        mount(Some(private), place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(LabError::kernel(format!("mount {} privately", place.display())))?;
    }
    Ok(())
}
