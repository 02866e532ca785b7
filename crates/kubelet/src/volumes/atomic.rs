//! Replacing a directory's files all at once: they lie in a dated directory, `..data` points at it, and the names a
//! user sees point through `..data`. Readers see the old files or the new ones, never a mixture.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

use super::{ownership, payload::File};

const DATA: &str = "..data";

/// Makes `dir` hold exactly `files`. Returns whether anything changed.
pub(super) fn write(
    dir: &Path,
    files: &BTreeMap<String, File>,
    group: Option<i64>,
) -> io::Result<bool> {
    if let Some(bad) = files.keys().find(|path| !is_safe(path)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path: {bad:?}")));
    }
    let data = dir.join(DATA);
    let current = fs::read_link(&data).ok();
    if current.as_ref().is_some_and(|current| same(&dir.join(current), files)) {
        return Ok(false);
    }
    let stamp = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    let fresh_name = format!("{stamp}.{:09}", rand::random::<u32>());
    let fresh = dir.join(&fresh_name);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        write_file(&fresh, path, file)?;
    }
    if let Some(group) = group {
        ownership::give_to_group(&fresh, group, true)?;
    }
    let next = dir.join("..data_tmp");
    let _ = fs::remove_file(&next);
    symlink(&fresh_name, &next)?;
    fs::rename(&next, &data)?;
    link_names(dir, files)?;
    if let Some(old) = current {
        let _ = fs::remove_dir_all(dir.join(old));
    }
    Ok(true)
}

/// Relative, without `..`, and not beginning with `..` (those names are ours).
fn is_safe(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with("..")
        && path.len() <= 4096
        && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}

fn write_file(fresh: &Path, path: &str, file: &File) -> io::Result<()> {
    let target = fresh.join(path);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&target, &file.bytes)?;
    fs::set_permissions(&target, fs::Permissions::from_mode(file.mode))?;
    if let Some(owner) = file.owner {
        std::os::unix::fs::chown(&target, Some(owner), None)?;
    }
    Ok(())
}

/// Whether the directory holds these bytes and nothing else.
fn same(dir: &Path, files: &BTreeMap<String, File>) -> bool {
    let mut found = BTreeSet::new();
    collect(dir, Path::new(""), &mut found);
    found.len() == files.len()
        && files.iter().all(|(path, file)| {
            found.contains(Path::new(path))
                && fs::read(dir.join(path)).is_ok_and(|bytes| bytes == file.bytes)
        })
}

fn collect(dir: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir.join(below)).into_iter().flatten().flatten() {
        let path = below.join(entry.file_name());
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            collect(dir, &path, found);
        } else {
            found.insert(path);
        }
    }
}

/// Links the first component of every path through `..data`, and removes links to nothing.
fn link_names(dir: &Path, files: &BTreeMap<String, File>) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(&*name) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &str)]) -> BTreeMap<String, File> {
        let file = |text: &str| File { bytes: text.as_bytes().to_vec(), mode: 0o640, owner: None };
        entries.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    #[test]
    fn replaces_all_at_once_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert!(write(dir, &files(&[("a", "1"), ("sub/b", "2")]), None).unwrap());
        assert!(!write(dir, &files(&[("a", "1"), ("sub/b", "2")]), None).unwrap());
        assert_eq!(fs::read_to_string(dir.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o640);

        assert!(write(dir, &files(&[("c", "3")]), None).unwrap());
        assert_eq!(fs::read_to_string(dir.join("c")).unwrap(), "3");
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|name| name != "..data" && name != "c");
        assert_eq!(names.len(), 1, "only the dated directory is left beside them: {names:?}");
    }

    #[test]
    fn refuses_to_leave_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["../x", "/x", "..data", "a/../../x", ""] {
            assert!(write(dir.path(), &files(&[(bad, "1")]), None).is_err(), "{bad}");
        }
    }
}
