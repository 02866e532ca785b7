//! Real clusters for tests: each in its own network namespace, data directory and cgroup, cleaned up
//! even when the test fails.
//!
//! Knows the `skiff` executable and `kubectl` only from outside, as a user does.

mod cluster;
mod images;
pub mod load;
mod namespace;
mod wait;

pub use cluster::{Cluster, ClusterOptions};
pub use images::website_images;
pub use namespace::{NetworkNamespace, command_in};
pub use wait::{eventually, eventually_ok};
