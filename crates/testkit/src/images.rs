//! The image archives of the sample website, built once a test run by the project's own generator.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

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
    root.join("dist/images")
}
