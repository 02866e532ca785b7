//! Real clusters for tests: each in network namespaces, data directories and cgroups of its own,
//! cleaned up even when the test fails.
//!
//! Knows the `skiff` executable and `kubectl` only from outside, as a user does.

mod cluster;
mod images;
pub mod load;
mod machine;
mod nodes;
mod wait;

pub use cluster::{Cluster, ClusterOptions};
pub use images::website_images;
pub use machine::{Families, INTERNET, Machine, OUTSIDE, Site};
pub use network::lab::Fault;
pub use wait::{eventually, eventually_ok};
