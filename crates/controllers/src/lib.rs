//! Kubernetes' controllers, one file or folder each: observe caches, plan purely, let the
//! runtime apply.
//!
//! Knows nothing of the scheduler, kubelets or the network: they meet in the API.

mod claim;
mod deployment;
mod objects;
mod replicaset;
#[cfg(test)]
mod testing;
