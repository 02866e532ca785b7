//! `skiff kubeconfig`: the administrator's way in.

use std::process::ExitCode;

use anyhow::Context;

use crate::layout::Layout;

pub(crate) fn run(layout: &Layout, path_only: bool) -> anyhow::Result<ExitCode> {
    let path = layout.kubeconfig();
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "read {}: was a cluster ever started in {}?",
            path.display(),
            layout.root().display()
        )
    })?;
    if path_only {
        println!("{}", path.display());
    } else {
        print!("{text}");
    }
    Ok(ExitCode::SUCCESS)
}
