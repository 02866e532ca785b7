//! A node's network before its first pod and after its last: sysctls, bridge, table, leftovers.
//!
//! Knows nothing of Services; the table it makes is empty until the proxy fills it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use crate::{
    cni::{LeaseError, Leases, host_device},
    netlink::{
        NetlinkError, Socket,
        ip::{self, Route},
        route,
    },
    nft::{self, NftError},
    nodes::{self, Underlay, keep_addresses},
    options::{Backend, DEVICE_NAME_BYTES, NetworkOptions, gateway, hardware_address},
    policy, ruleset,
};

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

/// Makes the node ready for pods: forwarding, the bridge with the pods' gateways, the route to
/// Services, the table. What exists is kept, so that running pods notice nothing; leases of pods
/// that are gone are taken back.
pub fn setup(options: &NetworkOptions) -> Result<(), SetupError> {
    check(options)?;
    make_directory(&options.data_dir)?;
    create_table(options)?;
    let mut socket = Socket::route()?;
    let underlay = Underlay::find(&mut socket, options)?;
    let mtu = underlay.mtu(options).map_err(SetupError::Option)?;
    make_bridge(&mut socket, options, mtu)?;
    set_sysctls(options, sysctls(options, &underlay))?;
    for lease in Leases::open(&options.leases_dir())?.reconcile()? {
        tracing::info!(addresses = ?lease.addresses, container = lease.container, "took back addresses");
        route::delete_link(&mut socket, &host_device(&lease.container, &lease.interface))?;
    }
    Ok(())
}

/// Makes the node ready for Services alone, where somebody else's network carries pods.
pub fn setup_services(options: &NetworkOptions) -> Result<(), SetupError> {
    check(options)?;
    make_directory(&options.data_dir)?;
    create_table(options)?;
    let mut settings = vec![("net/ipv4/ip_forward".to_owned(), "1")];
    if options.service_networks.iter().any(|services| services.addr().is_ipv6()) {
        settings.push(("net/ipv6/conf/all/forwarding".to_owned(), "1"));
    }
    set_sysctls(options, settings)
}

/// Makes the bridge with the pods' gateways, and the routes to Services; what is right stays.
pub(crate) fn make_bridge(
    socket: &mut Socket,
    options: &NetworkOptions,
    mtu: u32,
) -> Result<(), SetupError> {
    let gateways = options.gateways();
    let Some(first) = gateways.first() else {
        return Err(SetupError::Option("this node has no pod network".to_owned()));
    };
    route::add_bridge(socket, &options.bridge, hardware_address(*first), mtu)?;
    let bridge = route::link(socket, &options.bridge)?
        .ok_or_else(|| SetupError::Option(format!("bridge {} vanished", options.bridge)))?;
    if bridge.kind != "bridge" {
        let name = &options.bridge;
        return Err(SetupError::Option(format!("{name} exists and is not a bridge")));
    }
    if !bridge.up || bridge.mtu != mtu {
        route::set_up(socket, bridge.index, Some(mtu))?;
    }
    let on_bridge = |network: &IpNet| IpNet::new(gateway(*network), network.prefix_len()).ok();
    let wanted: Vec<IpNet> = options.pod_networks.iter().filter_map(on_bridge).collect();
    keep_addresses(socket, bridge.index, &wanted)?;
    // Without a route, programs of the node could not even try to reach a Service when the
    // machine has no default route. The source is one that every pod can answer.
    for services in &options.service_networks {
        let like = |gateway: &&std::net::IpAddr| gateway.is_ipv4() == services.addr().is_ipv4();
        let Some(source) = gateways.iter().find(like) else { continue };
        ip::set_route(socket, &Route::new(*services, bridge.index, None, Some(*source)))?;
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
    for script in policy::remove(options) {
        // What cannot be removed is not there: not every kernel has tables of every family.
        let _ = nft::apply(&options.nft, &script);
    }
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
    nodes::remove(&mut socket, options)?;
    let Some(bridge) = route::link(&mut socket, &options.bridge)? else { return Ok(()) };
    for link in route::links(&mut socket)? {
        if link.master == Some(bridge.index) && link.kind == "veth" {
            route::delete_link(&mut socket, &link.name)?;
        }
    }
    Ok(route::delete_link(&mut socket, &options.bridge)?)
}

fn check(options: &NetworkOptions) -> Result<(), SetupError> {
    let refuse = |text: String| Err(SetupError::Option(text));
    for pods in &options.pod_networks {
        if pods.max_prefix_len() - pods.prefix_len() < 3 {
            return refuse(format!("pod network {pods} has room for no pods"));
        }
        if !options.cluster_networks.iter().any(|cluster| cluster.contains(pods)) {
            let cluster = list(&options.cluster_networks);
            return refuse(format!("pod network {pods} is not within {cluster}"));
        }
        let overlaps = |services: &&IpNet| services.contains(pods) || pods.contains(*services);
        if let Some(services) = options.service_networks.iter().find(overlaps) {
            return refuse(format!("pods {pods} and Services {services} overlap"));
        }
    }
    let v4 = options.pod_networks.iter().filter(|network| network.addr().is_ipv4()).count();
    if v4 > 1 || options.pod_networks.len() - v4 > 1 {
        let pods = list(&options.pod_networks);
        return refuse(format!("pod networks {pods}: at most one range a family is possible"));
    }
    if options.bridge.is_empty() || options.bridge.len() > DEVICE_NAME_BYTES {
        return refuse(format!("{:?} is no device name", options.bridge));
    }
    if let Backend::Vxlan { id, port } = options.backend
        && (id == 0 || id >= 1 << 24 || port == 0)
    {
        return refuse(format!(
            "VXLAN id {id} and port {port}: an id is from 1 to 16777215, a port from 1 to 65535"
        ));
    }
    if !options.masquerade_mark.is_power_of_two() {
        return refuse("the masquerade mark must be one bit".to_owned());
    }
    Ok(())
}

fn list(networks: &[IpNet]) -> String {
    networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Makes the empty table unless there is one, which is left to the proxy.
fn create_table(options: &NetworkOptions) -> Result<(), SetupError> {
    let table = &options.table;
    let script = format!("create table inet {table}\n{}", ruleset::fixed(options));
    match nft::apply(&options.nft, &script) {
        Err(NftError::Refused(text)) if text.contains("File exists") => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// The settings needed, with values.
fn sysctls(options: &NetworkOptions, underlay: &Underlay) -> Vec<(String, &'static str)> {
    let bridge = &options.bridge;
    let mut settings = vec![
        ("net/ipv4/ip_forward".to_owned(), "1"),
        // For packets from 127.0.0.1 to a node port. Only where pods are: from elsewhere the
        // kernel keeps refusing packets to 127.0.0.0/8.
        (format!("net/ipv4/conf/{bridge}/route_localnet"), "1"),
        // Pods must not be told to bypass the node, and redirects use up the allowance for other
        // ICMP errors. Both count: the devices that exist keep their own setting.
        ("net/ipv4/conf/all/send_redirects".to_owned(), "0"),
        (format!("net/ipv4/conf/{bridge}/send_redirects"), "0"),
    ];
    if let (Backend::HostGateway, Some(device)) = (options.backend, &underlay.device) {
        // Pods of other nodes are behind this one. What others send to 127.0.0.0/8 is dropped by
        // a rule of the table.
        settings.push((format!("net/ipv4/conf/{}/route_localnet", device.name), "1"));
    }
    if options.pod_networks.iter().any(|network| network.addr().is_ipv6()) {
        if let Some(device) = &underlay.device {
            // A machine that forwards takes no routes from routers any more unless told to.
            let path = format!("net/ipv6/conf/{}/accept_ra", device.name);
            if fs::read_to_string(Path::new("/proc/sys").join(&path)).is_ok_and(|v| v.trim() == "1")
            {
                settings.push((path, "2"));
            }
        }
        settings.push((format!("net/ipv6/conf/{bridge}/accept_ra"), "0"));
        settings.push(("net/ipv6/conf/all/forwarding".to_owned(), "1"));
    }
    settings
}

fn set_sysctls(
    options: &NetworkOptions,
    settings: Vec<(String, &'static str)>,
) -> Result<(), SetupError> {
    let mut before: BTreeMap<String, String> = read_sysctls(&options.data_dir);
    let mut changed = false;
    for (name, value) in settings {
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
        let net = |text: &str| vec![text.parse::<IpNet>().expect("network")];
        let pods = |text: &str| {
            let mut options = NetworkOptions::new("node", "/nonexistent");
            options.pod_networks = text.split(',').flat_map(net).collect();
            check(&options).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(options(|_| ()), "");
        assert_eq!(pods("10.244.0.0/30"), "pod network 10.244.0.0/30 has room for no pods");
        assert_eq!(pods("10.9.0.0/24"), "pod network 10.9.0.0/24 is not within 10.244.0.0/16");
        assert!(pods("10.244.0.0/24,10.244.1.0/24").contains("at most one range a family"));
        assert_eq!(
            options(|options| options.service_networks = options.cluster_networks.clone()),
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
        let id = |id| {
            let mut options = NetworkOptions::new("node", "/nonexistent");
            options.backend = Backend::Vxlan { id, port: 8472 };
            check(&options).is_ok()
        };
        assert_eq!([id(0), id(1), id(1 << 24)], [false, true, false]);
    }

    #[test]
    fn a_missing_program_is_named() {
        let mut options = NetworkOptions::new("node", "/nonexistent");
        options.nft = "no-such-nft".into();
        let error = create_table(&options).expect_err("no program");
        assert_eq!(error.to_string(), "no-such-nft not found: install the package nftables");
    }
}
