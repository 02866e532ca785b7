//! Kubernetes' controllers, one file or folder each: observe caches, plan purely, let the
//! runtime apply.
//!
//! Knows nothing of the scheduler, kubelets or the network: they meet in the API.

mod claim;
mod controllers;
mod deployment;
mod discover;
mod endpoints;
mod gc;
mod namespace;
mod nodelifecycle;
mod objects;
mod pod_gc;
mod replicaset;
mod root_ca;
mod service_account;
#[cfg(test)]
mod testing;

pub use controllers::{Controllers, ControllersError, ControllersOptions};
