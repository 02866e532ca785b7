//! What a node remembers of the cluster, for a start without a server: its own pod networks and the
//! way to other nodes.
//!
//! Files in the network's directory, each written whole or not at all.

use std::{fs, io, path::Path};

use ipnet::IpNet;
use serde::{Serialize, de::DeserializeOwned};

use super::peer::Peers;

const POD_NETWORKS: &str = "pod-networks.json";
const PEERS: &str = "nodes.json";

/// The pod networks last given to this node; none if there were none.
pub fn saved_pod_networks(directory: &Path) -> Vec<IpNet> {
    read(directory, POD_NETWORKS)
}

/// Remembers the pod networks of this node.
pub(crate) fn save_pod_networks(directory: &Path, networks: &[IpNet]) -> io::Result<()> {
    write(directory, POD_NETWORKS, &networks)
}

/// Other nodes as last seen.
pub(crate) fn peers(directory: &Path) -> Peers {
    read(directory, PEERS)
}

/// Remembers other nodes.
pub(crate) fn save_peers(directory: &Path, peers: &Peers) -> io::Result<()> {
    write(directory, PEERS, peers)
}

fn read<T: DeserializeOwned + Default>(directory: &Path, name: &str) -> T {
    let bytes = fs::read(directory.join(name)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn write(directory: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let temporary = directory.join(format!("{name}.new"));
    fs::write(&temporary, serde_json::to_vec(value)?)?;
    fs::rename(&temporary, directory.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_back() {
        let directory = tempfile::tempdir().expect("directory");
        assert!(saved_pod_networks(directory.path()).is_empty());
        let networks = ["10.244.3.0/24".parse().expect("net"), "fd00::/64".parse().expect("net")];
        save_pod_networks(directory.path(), &networks).expect("save");
        assert_eq!(saved_pod_networks(directory.path()), networks);
        fs::write(directory.path().join(POD_NETWORKS), "torn").expect("write");
        assert!(saved_pod_networks(directory.path()).is_empty());
        assert!(peers(directory.path()).is_empty());
    }
}
