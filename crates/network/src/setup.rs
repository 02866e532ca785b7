//! A node's network before its first pod and after its last: sysctls, bridge, table, leftovers.
//!
//! Knows nothing of Services; the table it makes is empty until the proxy fills it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;

use crate::{
    cni::{LeaseError, Leases, host_device},
    netlink::{NetlinkError, Socket, route},
    nft::{self, NftError},
    options::{NetworkOptions, hardware_address},
    ruleset,
};

/// What Ethernet carries when nothing else is known, in bytes.
const ETHERNET_MTU: u32 = 1500;
/// File that keeps what sysctls were before us.
const SYSCTLS_FILE: &str = "sysctls.json";

/// Why the node's network could not be set up or removed.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// An option makes no sense.
    #[error("{0}")]
    Option(String),
    /// A kernel setting could not be written.
    #[error("set {name}")]
    Sysctl {
        /// The setting.
        name: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file of ours could not be written or removed.
    #[error("{what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The table could not be made.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The address leases could not be read.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

/// The largest packet of the pod network, in bytes.
pub(crate) fn mtu(options: &NetworkOptions) -> Result<u32, NetlinkError> {
    if let Some(mtu) = options.mtu {
        return Ok(mtu);
    }
    let mut socket = Socket::route()?;
    let Some(index) = route::default_device(&mut socket)? else { return Ok(ETHERNET_MTU) };
    let links = route::links(&mut socket)?;
    Ok(links.iter().find(|link| link.index == index).map_or(ETHERNET_MTU, |link| link.mtu))
}

/// Makes the node ready for pods: forwarding, the bridge with the pods' gateway, the route to
/// Services, the table. What exists is kept, so that running pods notice nothing; leases of pods
/// that are gone are taken back.
pub fn setup(options: &NetworkOptions) -> Result<(), SetupError> {
    check(options)?;
    make_directory(&options.data_dir)?;
    create_table(options)?;

    let mut socket = Socket::route()?;
    let gateway = options.gateway();
    let address = hardware_address(gateway);
    let mtu = mtu(options)?;
    route::add_bridge(&mut socket, &options.bridge, address, mtu)?;
    let bridge = route::link(&mut socket, &options.bridge)?
        .ok_or_else(|| SetupError::Option(format!("bridge {} vanished", options.bridge)))?;
    if bridge.kind != "bridge" {
        let name = &options.bridge;
        return Err(SetupError::Option(format!("{name} exists and is not a bridge")));
    }
    route::set_up(&mut socket, bridge.index, Some(mtu))?;
    let prefix = options.pod_network.prefix_len();
    let on_bridge = Ipv4Net::new(gateway, prefix)
        .map_err(|_| SetupError::Option(format!("bad network {}", options.pod_network)))?;
    route::add_address(&mut socket, bridge.index, on_bridge)?;
    set_sysctls(options)?;
    // Without a route, programs of the node could not even try to reach a Service when the
    // machine has no default route. The source is one that every pod can answer.
    route::set_route(
        &mut socket,
        &route::Route {
            destination: options.service_network,
            device: bridge.index,
            gateway: None,
            source: Some(gateway),
        },
    )?;

    for lease in Leases::open(&options.leases_dir())?.reconcile()? {
        tracing::info!(address = %lease.address, container = lease.container, "took back an address");
        route::delete_link(&mut socket, &host_device(&lease.container, &lease.interface))?;
    }
    Ok(())
}

/// Removes everything: table, bridge, the pods' devices, leases, settings. Pods still running lose
/// their network. Goes on after a failure and returns the first.
pub fn cleanup(options: &NetworkOptions) -> Result<(), SetupError> {
    let mut outcome =
        nft::apply(&options.nft, &ruleset::remove(&options.table)).or_else(|error| match error {
            // Who has no nft has no table either.
            NftError::Missing(_) => Ok(()),
            other => Err(SetupError::from(other)),
        });
    outcome = outcome.and(remove_devices(options));
    outcome = outcome.and(restore_sysctls(&options.data_dir));
    let removed = match fs::remove_dir_all(&options.data_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", &options.data_dir)(error))
        }
        _ => Ok(()),
    };
    outcome.and(removed)
}

fn remove_devices(options: &NetworkOptions) -> Result<(), SetupError> {
    let mut socket = Socket::route()?;
    let Some(bridge) = route::link(&mut socket, &options.bridge)? else { return Ok(()) };
    for link in route::links(&mut socket)? {
        if link.master == Some(bridge.index) && link.kind == "veth" {
            route::delete_link(&mut socket, &link.name)?;
        }
    }
    Ok(route::delete_link(&mut socket, &options.bridge)?)
}

fn check(options: &NetworkOptions) -> Result<(), SetupError> {
    let pods = options.pod_network;
    if pods.prefix_len() > 29 {
        return Err(SetupError::Option(format!("pod network {pods} has room for no pods")));
    }
    if !options.cluster_network.contains(&pods) {
        let cluster = options.cluster_network;
        return Err(SetupError::Option(format!("pod network {pods} is not within {cluster}")));
    }
    if options.service_network.contains(&pods) || pods.contains(&options.service_network) {
        let services = options.service_network;
        return Err(SetupError::Option(format!("pods {pods} and Services {services} overlap")));
    }
    if options.bridge.is_empty() || options.bridge.len() > 15 {
        return Err(SetupError::Option(format!("{:?} is no device name", options.bridge)));
    }
    if !options.masquerade_mark.is_power_of_two() {
        return Err(SetupError::Option("the masquerade mark must be one bit".to_owned()));
    }
    Ok(())
}

/// Makes the empty table unless there is one, which is left to the proxy.
fn create_table(options: &NetworkOptions) -> Result<(), SetupError> {
    let table = &options.table;
    let script = format!("create table ip {table}\n{}", ruleset::fixed(options));
    match nft::apply(&options.nft, &script) {
        Err(NftError::Refused(text)) if text.contains("File exists") => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// The settings needed, with values.
fn sysctls(options: &NetworkOptions) -> [(String, &'static str); 4] {
    let bridge = &options.bridge;
    [
        ("net/ipv4/ip_forward".to_owned(), "1"),
        // For packets from 127.0.0.1 to a node port. Only on the bridge: from elsewhere the
        // kernel keeps refusing packets to 127.0.0.0/8.
        (format!("net/ipv4/conf/{bridge}/route_localnet"), "1"),
        // Pods must not be told to bypass the node, and redirects use up the allowance for other
        // ICMP errors. Both count: the devices that exist keep their own setting.
        ("net/ipv4/conf/all/send_redirects".to_owned(), "0"),
        (format!("net/ipv4/conf/{bridge}/send_redirects"), "0"),
    ]
}

fn set_sysctls(options: &NetworkOptions) -> Result<(), SetupError> {
    let mut before: BTreeMap<String, String> = read_sysctls(&options.data_dir);
    let mut changed = false;
    for (name, value) in sysctls(options) {
        let path = Path::new("/proc/sys").join(&name);
        let present = fs::read_to_string(&path).unwrap_or_default();
        if present.trim() == value {
            continue;
        }
        // The bridge's own settings go with it.
        if !name.contains(options.bridge.as_str()) && !before.contains_key(&name) {
            before.insert(name.clone(), present.trim().to_owned());
            changed = true;
        }
        if changed {
            let file = options.data_dir.join(SYSCTLS_FILE);
            let text = serde_json::to_string(&before).unwrap_or_default();
            fs::write(&file, text).map_err(failed("write", &file))?;
        }
        fs::write(&path, value).map_err(|source| SetupError::Sysctl { name, source })?;
    }
    Ok(())
}

fn read_sysctls(data_dir: &Path) -> BTreeMap<String, String> {
    fs::read(data_dir.join(SYSCTLS_FILE))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

fn restore_sysctls(data_dir: &Path) -> Result<(), SetupError> {
    for (name, value) in read_sysctls(data_dir) {
        let path = Path::new("/proc/sys").join(&name);
        fs::write(path, value).map_err(|source| SetupError::Sysctl { name, source })?;
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), SetupError> {
    fs::create_dir_all(path).map_err(failed("create", path))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SetupError {
    let path = path.to_owned();
    move |source| SetupError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_make_no_sense_are_refused() {
        let options = |change: fn(&mut NetworkOptions)| {
            let mut options = NetworkOptions::new("node", "/nonexistent");
            change(&mut options);
            check(&options).err().map(|error| error.to_string()).unwrap_or_default()
        };
        let net = |text: &str| text.parse::<Ipv4Net>().expect("network");
        assert_eq!(options(|_| ()), "");
        assert_eq!(
            options(|options| options.pod_network = Ipv4Net::new_assert([10, 244, 0, 0].into(), 30)),
            "pod network 10.244.0.0/30 has room for no pods"
        );
        assert_eq!(
            options(|options| options.pod_network = Ipv4Net::new_assert([10, 9, 0, 0].into(), 24)),
            "pod network 10.9.0.0/24 is not within 10.244.0.0/16"
        );
        assert_eq!(
            options(|options| options.service_network = options.cluster_network),
            "pods 10.244.0.0/24 and Services 10.244.0.0/16 overlap"
        );
        assert_eq!(
            options(|options| options.bridge = "much-too-long-name".to_owned()),
            "\"much-too-long-name\" is no device name"
        );
        assert_eq!(
            options(|options| options.masquerade_mark = 3),
            "the masquerade mark must be one bit"
        );
        assert_eq!(crate::options::gateway(net("10.244.3.0/24")).to_string(), "10.244.3.1");
    }

    #[test]
    fn a_missing_program_is_named() {
        let mut options = NetworkOptions::new("node", "/nonexistent");
        options.nft = "no-such-nft".into();
        let error = create_table(&options).expect_err("no program");
        assert_eq!(error.to_string(), "no-such-nft not found: install the package nftables");
    }
}
