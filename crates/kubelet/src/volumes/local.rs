//! Volumes that are directories of the node: emptyDir and hostPath.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
};

use k8s_openapi::api::core::v1 as api;
use nix::mount::{MsFlags, mount};

use super::ownership;
use crate::{mounts::is_mount_point, resources};

/// Makes an emptyDir; one that is there already keeps its contents.
pub(super) fn empty_dir(
    dir: &Path,
    volume: &api::EmptyDirVolumeSource,
    group: Option<i64>,
) -> Result<(), String> {
    let fail = |error: io::Error| error.to_string();
    let mut fresh = !dir.exists();
    fs::create_dir_all(dir).map_err(fail)?;
    match volume.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => {
            if !is_mount_point(dir) {
                let size = volume
                    .size_limit
                    .as_ref()
                    .map(|q| resources::quantity(q).value())
                    .filter(|s| *s > 0);
                let data = size.map_or_else(
                    || "mode=0777".to_owned(),
                    |size| format!("mode=0777,size={size}"),
                );
                mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some(data.as_str()))
                    .map_err(|errno| format!("mount of tmpfs failed: {errno}"))?;
                fresh = true;
            }
        }
        other => return Err(format!("unknown storage medium {other:?}")),
    }
    if fresh {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).map_err(fail)?;
        if let Some(group) = group {
            ownership::give_to_group(dir, group, false).map_err(fail)?;
        }
    }
    Ok(())
}

/// Makes a directory one of its own in memory, kept out of swap where the kernel can do that (6.4); nothing happens
/// if it is already.
pub(super) fn put_in_memory(dir: &Path) -> io::Result<()> {
    let above = dir.parent().unwrap_or(dir);
    if fs::metadata(dir)?.dev() != fs::metadata(above)?.dev() {
        return Ok(());
    }
    let mount_with = |data: &str| {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(data)).map_err(io::Error::from)
    };
    mount_with("mode=0755,noswap").or_else(|_| mount_with("mode=0755"))
}

/// Checks, and where asked for makes, what a hostPath names.
pub(super) fn host_path(volume: &api::HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&volume.path);
    let kind = volume.type_.as_deref().unwrap_or_default();
    let found = fs::metadata(path).ok();
    let mismatch =
        || Err(format!("hostPath type check failed: {} is not a {}", volume.path, word(kind)));
    match (kind, found) {
        ("", _) => Ok(()),
        ("DirectoryOrCreate", None) => {
            fs::create_dir_all(path).map_err(|error| error.to_string())?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))
                .map_err(|error| error.to_string())
        }
        ("FileOrCreate", None) => {
            File::create(path).map_err(|error| error.to_string())?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o644))
                .map_err(|error| error.to_string())
        }
        ("Directory" | "DirectoryOrCreate", Some(m)) if m.is_dir() => Ok(()),
        ("File" | "FileOrCreate", Some(m)) if m.is_file() => Ok(()),
        ("Socket", Some(m)) if m.file_type().is_socket() => Ok(()),
        ("CharDevice", Some(m)) if m.file_type().is_char_device() => Ok(()),
        ("BlockDevice", Some(m)) if m.file_type().is_block_device() => Ok(()),
        _ => mismatch(),
    }
}

fn word(kind: &str) -> &str {
    match kind {
        "Directory" | "DirectoryOrCreate" => "directory",
        "File" | "FileOrCreate" => "file",
        "Socket" => "socket file",
        "CharDevice" => "character device",
        "BlockDevice" => "block device",
        other => other,
    }
}
