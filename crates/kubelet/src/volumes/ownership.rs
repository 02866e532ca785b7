//! Group ownership of volumes (`fsGroup`).

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, lchown},
    path::Path,
};

/// Gives a tree to a group, readable (and writable unless `read_only`) for it; directories pass the group on.
pub(super) fn give_to_group(path: &Path, group: i64, read_only: bool) -> io::Result<()> {
    let gid = u32::try_from(group).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let meta = fs::symlink_metadata(path)?;
    lchown(path, None, Some(gid))?;
    if meta.is_symlink() {
        return Ok(());
    }
    let bits = match (meta.is_dir(), read_only) {
        (true, true) => 0o2550,
        (true, false) => 0o2770,
        (false, true) => 0o440,
        (false, false) => 0o660,
    };
    fs::set_permissions(
        path,
        fs::Permissions::from_mode(meta.permissions().mode() & 0o7777 | bits),
    )?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)?.flatten() {
            give_to_group(&entry.path(), group, read_only)?;
        }
    }
    Ok(())
}
