//! `cargo xtask layers`: arrows between crates point down only, and components never meet.
//!
//! Reads `cargo metadata`; knows nothing of what is inside a crate.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// Crates from the bottom up. A crate may import what stands in a lower layer, and, in the layers
/// of words and mechanisms, what stands before it in its own.
const LAYERS: &[(&str, &[&str])] = &[
    ("words", &["meta", "schema", "codec"]),
    ("mechanism", &["store", "registry", "client", "reconcile", "pki", "cri", "serve", "stream"]),
    ("components", &["apiserver", "controllers", "scheduler", "kubelet", "network", "dns"]),
    ("root", &["skiff"]),
];

/// Crates outside the product: they may import anything; nothing of the product imports them.
const TOOLS: &[&str] = &["fuzz", "testkit", "testapp", "bench", "xtask"];

/// Components are strangers to each other.
const STRANGERS: &str = "components";

/// Checks every edge between workspace crates.
pub(crate) fn run() -> anyhow::Result<()> {
    let edges = edges()?;
    let mut wrong = Vec::new();
    for (from, targets) in &edges {
        if !TOOLS.contains(&from.as_str()) && place(from).is_none() {
            wrong.push(format!("crate {from} has no layer: add it to crates/xtask/src/layers.rs"));
        }
        wrong.extend(targets.iter().filter_map(|to| forbidden(from, to)));
    }
    if !wrong.is_empty() {
        bail!("forbidden arrows between crates:\n  {}", wrong.join("\n  "));
    }
    println!("layers: {} crates, no forbidden arrow", edges.len());
    Ok(())
}

/// Why the arrow `from -> to` is forbidden, if it is.
fn forbidden(from: &str, to: &str) -> Option<String> {
    if TOOLS.contains(&from) {
        return None;
    }
    if TOOLS.contains(&to) {
        return Some(format!("{from} -> {to}: the product does not import tools"));
    }
    let (from_layer, from_index) = place(from)?;
    let (to_layer, to_index) = place(to)?;
    let strangers = LAYERS[from_layer].0 == STRANGERS;
    if to_layer > from_layer || (to_layer == from_layer && (strangers || to_index > from_index)) {
        let reason = if strangers && to_layer == from_layer {
            "components never import each other"
        } else {
            "arrows point down"
        };
        return Some(format!("{from} -> {to}: {reason}"));
    }
    None
}

fn place(name: &str) -> Option<(usize, usize)> {
    LAYERS.iter().enumerate().find_map(|(layer, (_, names))| {
        names.iter().position(|n| *n == name).map(|index| (layer, index))
    })
}

/// Workspace crates with the workspace crates that they import outside of tests.
fn edges() -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .context("start cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).context("parse cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let short = |name: &str| name.strip_prefix("skiff-").unwrap_or(name).to_owned();
    Ok(packages
        .iter()
        .map(|package| {
            let targets = package["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|d| d["path"].is_string() && d["kind"] != "dev")
                .filter_map(|d| d["name"].as_str().map(short))
                .collect();
            (short(package["name"].as_str().unwrap_or_default()), targets)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::forbidden;

    #[test]
    fn arrows_point_down_only() {
        assert_eq!(forbidden("registry", "store"), None);
        assert_eq!(forbidden("skiff", "kubelet"), None);
        assert_eq!(forbidden("bench", "kubelet"), None);
        for (from, to) in [
            ("store", "registry"),
            ("meta", "schema"),
            ("kubelet", "network"),
            ("registry", "apiserver"),
            ("skiff", "testkit"),
        ] {
            assert!(forbidden(from, to).is_some(), "{from} -> {to} must be forbidden");
        }
    }
}
