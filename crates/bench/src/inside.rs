//! Asynchronous work in the network namespace of a cluster.

use std::future::Future;

use anyhow::{Context, bail};
use testkit::Cluster;

/// As many as skiff itself uses on the machine the budgets were measured on.
const WORKERS: usize = 2;

/// Work that goes on in a cluster's network.
pub(crate) struct Work<T>(std::thread::JoinHandle<anyhow::Result<T>>);

impl<T> Work<T> {
    /// Waits for what the work returns.
    pub(crate) fn wait(self) -> anyhow::Result<T> {
        match self.0.join() {
            Ok(result) => result,
            Err(_) => bail!("the load generator panicked"),
        }
    }
}

/// Starts `work` on threads of its own in the cluster's network. Threads of an async runtime are in
/// the namespace of the thread that made it.
pub(crate) fn start<T, F>(cluster: &Cluster, work: impl FnOnce() -> F + Send + 'static) -> Work<T>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>>,
{
    Work(cluster.namespace().run(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()
            .context("start the async runtime")?;
        runtime.block_on(work())
    }))
}

/// As [`start`], and waits.
pub(crate) fn run<T, F>(
    cluster: &Cluster,
    work: impl FnOnce() -> F + Send + 'static,
) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>>,
{
    start(cluster, work).wait()
}
