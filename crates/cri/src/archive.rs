//! Writing OCI image archives (image layout in a tar file) from single files, byte for byte the same every time, and
//! the pause image made this way. Knows nothing of any runtime: what loads archives is elsewhere.
//!
//! Rules: OCI image-spec v1 (image-layout, manifest, config, layer). Layers are not compressed: these images are
//! small, local, and loaded far more often than sent.

mod pause;

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub use pause::program as pause_program;

/// Name of the image of pod sandboxes.
pub const PAUSE_IMAGE: &str = "skiff.local/pause:1";

const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// Processor architecture, as images name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Architecture {
    /// That of this executable; `None` where skiff does not run.
    pub fn host() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// `amd64` or `arm64`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// An image of one layer.
#[derive(Debug, Clone)]
pub struct Image {
    /// Full name with tag, such as `skiff.local/website:1.0.0`.
    pub name: String,
    /// What its executables run on.
    pub architecture: Architecture,
    /// Files and directories; parents that are not listed are made.
    pub files: Vec<ImageFile>,
    /// Start of every command line.
    pub entrypoint: Vec<String>,
    /// Rest of the command line, unless the container says otherwise.
    pub command: Vec<String>,
    /// Environment, as `NAME=value`.
    pub environment: Vec<String>,
    /// `uid:gid` of the process; empty means root.
    pub user: String,
    /// Ports it says it serves, as `8080/tcp`.
    pub ports: Vec<String>,
}

/// A file or directory of an image.
#[derive(Debug, Clone)]
pub struct ImageFile {
    /// Path without leading slash; at most 99 bytes.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// The content; `None` makes a directory.
    pub content: Option<Vec<u8>>,
}

impl ImageFile {
    /// An executable.
    pub fn executable(path: impl Into<String>, content: Vec<u8>) -> Self {
        Self { path: path.into(), mode: 0o755, content: Some(content) }
    }

    /// A file to read.
    pub fn text(path: impl Into<String>, content: impl Into<String>) -> Self {
        Self { path: path.into(), mode: 0o644, content: Some(content.into().into_bytes()) }
    }

    /// A directory.
    pub fn directory(path: impl Into<String>, mode: u32) -> Self {
        Self { path: path.into(), mode, content: None }
    }
}

/// The image of pod sandboxes: one static program of a few hundred bytes, see [`pause_program`].
pub fn pause_image(architecture: Architecture) -> Image {
    Image {
        name: PAUSE_IMAGE.to_owned(),
        architecture,
        files: vec![ImageFile::executable("pause", pause_program(architecture))],
        entrypoint: vec!["/pause".to_owned()],
        command: Vec::new(),
        environment: Vec::new(),
        user: "65535:65535".to_owned(),
        ports: Vec::new(),
    }
}

/// Writes an archive of `images` that `skiff image import`, `ctr images import` and other OCI tools load.
///
/// # Errors
/// When `out` fails, or a path is too long for its header.
pub fn write(out: impl Write, images: &[Image]) -> io::Result<()> {
    let mut blobs = BTreeMap::new();
    let mut manifests = Vec::with_capacity(images.len());
    for image in images {
        manifests.push(add(&mut blobs, image)?);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests});
    let mut archive = tar::Builder::new(out);
    append(&mut archive, "blobs", 0o755, None)?;
    append(&mut archive, "blobs/sha256", 0o755, None)?;
    for (digest, blob) in &blobs {
        append(&mut archive, &format!("blobs/sha256/{digest}"), 0o644, Some(blob))?;
    }
    append(&mut archive, "index.json", 0o644, Some(index.to_string().as_bytes()))?;
    append(&mut archive, "oci-layout", 0o644, Some(br#"{"imageLayoutVersion":"1.0.0"}"#))?;
    archive.into_inner()?.flush()
}

/// Adds an image's blobs; its descriptor for the index.
fn add(blobs: &mut BTreeMap<String, Vec<u8>>, image: &Image) -> io::Result<Value> {
    let layer = blob(blobs, layer(image)?);
    let ports: BTreeMap<&str, Value> =
        image.ports.iter().map(|port| (&**port, json!({}))).collect();
    let mut process = json!({
        "Entrypoint": image.entrypoint,
        "Env": image.environment,
        "WorkingDir": "/",
    });
    let optional = [
        ("Cmd", !image.command.is_empty(), json!(image.command)),
        ("User", !image.user.is_empty(), json!(image.user)),
        ("ExposedPorts", !ports.is_empty(), json!(ports)),
    ];
    for (name, _, value) in optional.into_iter().filter(|(_, wanted, _)| *wanted) {
        process[name] = value;
    }
    let config = json!({
        "architecture": image.architecture.name(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": process,
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "skiff"}],
    });
    let config = blob(blobs, config.to_string().into_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.descriptor(CONFIG_TYPE),
        "layers": [layer.descriptor(LAYER_TYPE)],
    });
    let manifest = blob(blobs, manifest.to_string().into_bytes());
    let mut descriptor = manifest.descriptor(MANIFEST_TYPE);
    let tag = image.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    descriptor["platform"] = json!({"architecture": image.architecture.name(), "os": "linux"});
    descriptor["annotations"] = json!({
        "io.containerd.image.name": image.name,
        "org.opencontainers.image.ref.name": tag,
    });
    Ok(descriptor)
}

struct Blob {
    digest: String,
    size: usize,
}

impl Blob {
    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.size})
    }
}

fn blob(blobs: &mut BTreeMap<String, Vec<u8>>, content: Vec<u8>) -> Blob {
    let digest: String =
        Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let size = content.len();
    blobs.insert(digest.clone(), content);
    Blob { digest: format!("sha256:{digest}"), size }
}

fn layer(image: &Image) -> io::Result<Vec<u8>> {
    let mut entries: BTreeMap<&str, (u32, Option<&[u8]>)> = BTreeMap::new();
    for file in &image.files {
        for (end, _) in file.path.match_indices('/') {
            entries.entry(&file.path[..end]).or_insert((0o755, None));
        }
        entries.insert(&file.path, (file.mode, file.content.as_deref()));
    }
    let mut layer = tar::Builder::new(Vec::new());
    for (path, (mode, content)) in entries {
        append(&mut layer, path, mode, content)?;
    }
    layer.into_inner()
}

/// Appends one entry owned by root and dated 1970.
fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    mode: u32,
    content: Option<&[u8]>,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    let kind = if content.is_some() { tar::EntryType::Regular } else { tar::EntryType::Directory };
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let content = content.unwrap_or_default();
    header.set_size(content.len() as u64);
    let path = if kind == tar::EntryType::Directory { format!("{path}/") } else { path.to_owned() };
    header.set_path(path)?;
    header.set_cksum();
    archive.append(&header, content)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn sample() -> Image {
        Image {
            files: vec![
                ImageFile::executable("bin/app", vec![1, 2, 3]),
                ImageFile::directory("tmp", 0o1777),
            ],
            command: vec!["serve".to_owned()],
            environment: vec!["VERSION=1".to_owned()],
            ..pause_image(Architecture::Amd64)
        }
    }

    fn entries(archive: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
        let mut reader = tar::Archive::new(archive);
        reader
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (path, (entry.header().mode().unwrap(), content))
            })
            .collect()
    }

    #[test]
    fn archives_are_deterministic_and_their_digests_true() {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        write(&mut one, &[sample()]).unwrap();
        write(&mut two, &[sample()]).unwrap();
        assert_eq!(one, two);
        for (path, (_, content)) in entries(&one) {
            if let Some(digest) = path.strip_prefix("blobs/sha256/").filter(|d| !d.is_empty()) {
                let found: String =
                    Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(found, digest);
            }
        }
    }

    #[test]
    fn the_index_leads_to_the_files() {
        let mut archive = Vec::new();
        write(&mut archive, &[sample()]).unwrap();
        let files = entries(&archive);
        let read = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
            files[&digest].1.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"].1).unwrap();
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"]["io.containerd.image.name"], PAUSE_IMAGE);
        assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1");
        let manifest: Value = serde_json::from_slice(&read(entry)).unwrap();
        let config: Value = serde_json::from_slice(&read(&manifest["config"])).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        assert_eq!(config["config"]["Cmd"][0], "serve");
        let layer = entries(&read(&manifest["layers"][0]));
        assert_eq!(layer["bin/app"], (0o755, vec![1, 2, 3]));
        assert_eq!(layer["tmp/"].0, 0o1777);
        assert!(layer.contains_key("bin/"));
    }
}
