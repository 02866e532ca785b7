//! A node's network: pods' interfaces and addresses (a CNI plugin), and Services (nftables).
//!
//! Each part is a pure planner from API objects or a runtime's request to desired kernel state,
//! and an applier (netlink, `nft`). Knows nothing of the kubelet or of containers.

mod announce;
mod bandwidth;
pub mod cni;
mod edits;
mod forward;
pub mod lab;
mod netlink;
mod nft;
mod nodes;
mod options;
mod policy;
mod proxy;
mod ruleset;
mod setup;

pub use announce::Announcer;
pub use forward::{ForwardDrop, ForwardError, forward_drops};
pub use netlink::{NetlinkError, nftables::kernel_has_nftables};
pub use nft::{NftError, nft_program};
pub use nodes::{PodNetwork, PodNetworkError, await_pod_networks, saved_pod_networks};
pub use options::{Backend, NetworkOptions};
pub use policy::{Policy, PolicyError, PolicyTableError};
pub use proxy::{LEASE_NAMESPACE, Proxy, ProxyError, REVISION_ANNOTATION, TableError, lease_name};
pub use setup::{SetupError, cleanup, setup, setup_services};
