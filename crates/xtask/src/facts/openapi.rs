//! Writes the outline of the reference's OpenAPI documents, which a test compares ours with.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, ensure};

use super::schema::{HEADER, read, write};

const OUTPUT: &str = "crates/apiserver/tests/server/openapi.tsv";

/// Reads the documents and writes the table.
pub(crate) fn generate(reference: &Path) -> anyhow::Result<()> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for entry in std::fs::read_dir(reference.join("openapi-v3"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a file's name")?;
        let name = name.strip_suffix("_openapi.json").context("a document")?.replace("__", "/");
        for (key, digest) in schema::openapi::outline(&name, &read(&path)?) {
            let known = all.insert(key.clone(), digest.clone());
            ensure!(known.is_none_or(|known| known == digest), "two forms of {key}");
        }
    }
    let mut out = String::from(HEADER);
    out.push_str("# A document, path or type, and the digest of what it promises.\n");
    for (key, digest) in all {
        writeln!(out, "{key}\t{digest}")?;
    }
    write(Path::new(OUTPUT), &out)
}
