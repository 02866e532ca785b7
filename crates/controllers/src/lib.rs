//! Kubernetes' controllers, one file or folder each: observe caches, plan purely, let the
//! runtime apply.
//!
//! Knows nothing of the scheduler, kubelets or the network: they meet in the API.

mod bootstrap;
mod claim;
mod controllers;
mod csr;
mod deployment;
mod discover;
mod disruption;
mod endpoints;
mod gc;
mod load_balancer;
mod namespace;
mod node_ipam;
mod nodelifecycle;
mod objects;
mod pod_gc;
mod protection;
mod quota;
mod replicaset;
mod root_ca;
mod service_account;
mod service_account_token;
mod service_cidr;
mod statefulset;
#[cfg(test)]
mod testing;

pub use controllers::{Controllers, ControllersError, ControllersOptions};
pub use csr::Signer;
pub use load_balancer::{AddressRange, RangeError};
pub use node_ipam::{NodeIpamError, NodeIpamOptions};
