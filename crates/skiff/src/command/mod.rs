//! One file a command. Those of `serve` run a role; the others talk to what runs, or to what it left.

pub(crate) mod down;
pub(crate) mod image;
pub(crate) mod kubeconfig;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod token;

use std::future::Future;

use anyhow::{Context, bail};

use crate::instance::{self, Description};
use crate::layout::Layout;

/// Runs one command's future on a runtime of its own.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the async runtime")?
        .block_on(work)
}

/// The description of the cluster in the data directory, which must be running.
fn running(layout: &Layout) -> anyhow::Result<Description> {
    match instance::find(layout)? {
        Some((description, true)) => Ok(description),
        _ => bail!("nothing runs in {}: start it with `skiff up`", layout.root().display()),
    }
}
