//! Image archives of the sample website: builds the static executable once, wraps it three times. Knows nothing of
//! clusters; `skiff image import` loads what it writes.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use cri::archive::{self, Architecture, Image, ImageFile};

const DIRECTORY: &str = "dist/images";

/// Versions of the website and what is particular about them. The broken one never becomes ready, and after a few
/// seconds its liveness fails too.
const VERSIONS: [(&str, &[&str]); 3] = [
    ("1.0.0", &[]),
    ("1.1.0", &[]),
    ("1.2.0", &["FAIL_READYZ=true", "FAIL_HEALTHZ_AFTER_MS=5000"]),
];

/// Writes `dist/images/website-VERSION.tar` and `dist/images/pause.tar`.
pub(crate) fn run() -> anyhow::Result<()> {
    let architecture = Architecture::host().context("there are no images for this processor")?;
    let executable = build()?;
    let program =
        fs::read(&executable).with_context(|| format!("cannot read {}", executable.display()))?;
    check_static(&program).with_context(|| executable.display().to_string())?;
    fs::create_dir_all(DIRECTORY)?;
    for (version, environment) in VERSIONS {
        let path = Path::new(DIRECTORY).join(format!("website-{version}.tar"));
        write(&path, &website(architecture, version, environment, program.clone()))?;
    }
    write(&Path::new(DIRECTORY).join("pause.tar"), &archive::pause_image(architecture))
}

fn website(
    architecture: Architecture,
    version: &str,
    environment: &[&str],
    program: Vec<u8>,
) -> Image {
    let mut environment: Vec<String> = environment.iter().map(|&one| one.to_owned()).collect();
    environment.insert(0, format!("VERSION={version}"));
    environment.insert(1, "PATH=/".to_owned());
    Image {
        name: format!("skiff.local/website:{version}"),
        architecture,
        files: vec![
            ImageFile::executable("testapp", program),
            ImageFile::directory("tmp", 0o1777),
            ImageFile::text(
                "etc/passwd",
                "root:x:0:0:root:/:/testapp\nwebsite:x:65532:65532:website:/:/testapp\n",
            ),
            ImageFile::text("etc/group", "root:x:0:\nwebsite:x:65532:\n"),
        ],
        entrypoint: vec!["/testapp".to_owned()],
        command: vec!["serve".to_owned()],
        environment,
        user: "65532:65532".to_owned(),
        ports: vec!["8080/tcp".to_owned()],
    }
}

/// Builds the website and returns the path of its executable. A target directory of its own keeps it
/// from waiting for other builds, which hold the lock of theirs for minutes.
fn build() -> anyhow::Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["rustc", "--package", "skiff-testapp", "--release", "--quiet"])
        .args(["--message-format", "json-render-diagnostics", "--target-dir"])
        .arg(target.join("website"))
        .args(["--", "-C", "target-feature=+crt-static"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("building the website failed");
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo names no executable")
}

/// An executable that asks for an interpreter would not start in an image that holds nothing else.
fn check_static(program: &[u8]) -> anyhow::Result<()> {
    const INTERPRETER: [u8; 4] = 3_u32.to_le_bytes();
    let word = |at: usize, size: usize| -> anyhow::Result<usize> {
        let bytes = program.get(at..at + size).context("not an ELF executable")?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    };
    let (offset, size, count) = (word(32, 8)?, word(54, 2)?, word(56, 2)?);
    for index in 0..count {
        let at = offset + index * size;
        if program.get(at..at + 4) == Some(&INTERPRETER) {
            bail!("the executable is not static");
        }
    }
    Ok(())
}

fn write(path: &Path, image: &Image) -> anyhow::Result<()> {
    // Under another name first: an archive is whole or not there.
    let partial = path.with_extension("tar.partial");
    let file = File::create(&partial).with_context(|| partial.display().to_string())?;
    archive::write(BufWriter::new(file), std::slice::from_ref(image))?;
    fs::rename(&partial, path)?;
    println!("{}  {}", path.display(), image.name);
    Ok(())
}
