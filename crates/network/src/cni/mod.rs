//! The pod network as a CNI plugin: one short-lived process per call of the container runtime.
//!
//! A pod gets a veth pair whose outer end is a port of the node's bridge, an address with prefix
//! /32 and a route to the bridge for everything. Packets between pods are therefore routed, and
//! conntrack sees both directions whether or not the kernel filters bridged traffic. Knows nothing
//! of the Kubernetes API; what it must remember is in lease files.

mod install;
mod lease;
mod plugin;
mod sandbox;
mod types;

pub use install::{
    InstallError, InstallOptions, LOOPBACK_NAME, PLUGIN_NAME, install, install_loopback,
};
pub(crate) use lease::Leases;
pub use lease::{HostPort, Lease, LeaseError, PodName};
pub(crate) use plugin::{DEVICE_PREFIX, host_device};
pub use plugin::{is_invocation, main};
