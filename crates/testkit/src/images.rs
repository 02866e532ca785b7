//! The image archives of the sample website, built once a test run by the project's own generator.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

static BUILT: OnceLock<PathBuf> = OnceLock::new();

/// The archives of website 1.0.0, 1.1.0 and the broken 1.2.0, in this order.
///
/// # Panics
/// When they cannot be built.
pub fn website_images() -> [PathBuf; 3] {
    let directory = BUILT.get_or_init(build);
    ["1.0.0", "1.1.0", "1.2.0"].map(|version| directory.join(format!("website-{version}.tar")))
}

fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("crates/testkit is two levels deep");
    let directory = root.join("dist/images");
    if are_current(&directory, &root.join("crates/testapp/src")) {
        return directory;
    }
    let output = Command::new("cargo")
        .args(["xtask", "images"])
        .current_dir(root)
        .output()
        .expect("cargo is installed where tests run");
    assert!(
        output.status.success(),
        "cargo xtask images: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    directory
}

/// Whether the archives are newer than every file of the website.
fn are_current(archives: &Path, sources: &Path) -> bool {
    let oldest = newest_first(archives).pop();
    let newest = newest_first(sources).into_iter().next();
    matches!((oldest, newest), (Some(archive), Some(source)) if archive > source)
}

/// When the files below a directory were changed, the last first.
fn newest_first(directory: &Path) -> Vec<SystemTime> {
    let mut times = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => times.extend(newest_first(&entry.path())),
            Ok(metadata) => times.extend(metadata.modified().ok()),
            Err(_) => {}
        }
    }
    times.sort_unstable_by(|a, b| b.cmp(a));
    times
}
