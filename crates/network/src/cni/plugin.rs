//! The plugin's process: environment and standard input in, one verb, JSON out.
//!
//! Every verb may be repeated and may be cut short at any point: what a killed ADD leaves is
//! undone by DEL, or by the next reconciliation once the namespace is gone.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::IpAddr,
    os::fd::AsFd,
    path::Path,
    process::ExitCode,
};

use nix::errno::Errno;
use serde_json::{Value, json};

use super::{
    LOOPBACK_NAME, Lease, LeaseError, Leases, PLUGIN_NAME, PodName,
    lease::{Request, tag},
    sandbox::Sandbox,
    types::{Attached, CniError, Config, VERSIONS},
};
use crate::{
    netlink::{NetlinkError, Socket, conntrack, queue, route},
    nft,
    options::{DEVICE_NAME_BYTES, gateway, hardware_address},
    policy::{self, Attached as PolicyAttachment},
    ruleset,
};

/// No configuration is larger, in bytes.
const CONFIG_BYTES: u64 = 1 << 20;

/// Whether this process was started as a CNI plugin: by the name it was called under, and with
/// `CNI_COMMAND` in its environment.
pub fn is_invocation() -> bool {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name();
    name.is_some_and(|name| name == PLUGIN_NAME || name == LOOPBACK_NAME)
        && std::env::var_os("CNI_COMMAND").is_some()
}

/// Serves one call of the container runtime. Must be called before anything starts a thread.
pub fn main() -> ExitCode {
    let (version, outcome) = run();
    let (text, code) = match outcome {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(result)) => (result, ExitCode::SUCCESS),
        Err(error) => (error.to_json(&version), ExitCode::FAILURE),
    };
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run() -> (String, Result<Option<Value>, CniError>) {
    let mut input = Vec::new();
    if let Err(error) = io::stdin().lock().take(CONFIG_BYTES).read_to_end(&mut input) {
        return (VERSIONS[3].to_owned(), Err(CniError::io(error)));
    }
    let command = std::env::var("CNI_COMMAND").unwrap_or_default();
    let config: Config = match serde_json::from_slice(&input) {
        Ok(config) => config,
        Err(error) => return (VERSIONS[3].to_owned(), Err(CniError::decode(error))),
    };
    let version = match config.cni_version.as_str() {
        "" => "0.3.1".to_owned(),
        given => given.to_owned(),
    };
    if command == "VERSION" {
        let all = json!({ "cniVersion": version, "supportedVersions": VERSIONS });
        return (version, Ok(Some(all)));
    }
    if !VERSIONS.contains(&version.as_str()) {
        let error = CniError::new(1, "incompatible CNI version", format!("{version} is unknown"));
        return (version, Err(error));
    }
    let outcome = serve(&command, &version, &config);
    (version, outcome)
}

fn serve(command: &str, version: &str, config: &Config) -> Result<Option<Value>, CniError> {
    let loopback = config.kind == LOOPBACK_NAME;
    match command {
        "ADD" if loopback => add_loopback(version).map(Some),
        "ADD" => add(version, config, &Call::from_environment()?).map(Some),
        "DEL" if loopback => Ok(None),
        "DEL" => delete(config, &Call::from_environment()?).map(|()| None),
        "CHECK" if loopback => Ok(None),
        "CHECK" => check(config, &Call::from_environment()?).map(|()| None),
        "GC" if loopback => Ok(None),
        "GC" => collect(config).map(|()| None),
        "STATUS" if loopback => Ok(None),
        "STATUS" => status(config).map(|()| None),
        other => Err(CniError::environment(format!("CNI_COMMAND {other:?} is unknown"))),
    }
}

/// The call's arguments.
struct Call {
    container: String,
    interface: String,
    netns: String,
    pod: Option<PodName>,
}

impl Call {
    fn from_environment() -> Result<Self, CniError> {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let call = Self {
            container: variable("CNI_CONTAINERID"),
            interface: variable("CNI_IFNAME"),
            netns: variable("CNI_NETNS"),
            pod: pod_name(&variable("CNI_ARGS")),
        };
        if call.container.is_empty() {
            return Err(CniError::environment("CNI_CONTAINERID is missing"));
        }
        let name = &call.interface;
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
        if name.is_empty()
            || name.len() > DEVICE_NAME_BYTES
            || name == "."
            || name == ".."
            || name.contains(bad)
        {
            return Err(CniError::environment(format!("CNI_IFNAME {name:?} is no interface name")));
        }
        Ok(call)
    }

    fn open_netns(&self) -> Result<File, CniError> {
        open_netns(&self.netns)
    }
}

fn open_netns(path: &str) -> Result<File, CniError> {
    if path.is_empty() {
        return Err(CniError::environment("CNI_NETNS is missing"));
    }
    File::open(path).map_err(|error| CniError::environment(format!("CNI_NETNS {path}: {error}")))
}

/// The pod that container runtimes of Kubernetes name in `CNI_ARGS`.
fn pod_name(arguments: &str) -> Option<PodName> {
    let value = |name: &str| {
        let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    Some(PodName {
        namespace: value("K8S_POD_NAMESPACE")?,
        name: value("K8S_POD_NAME")?,
        uid: value("K8S_POD_UID").unwrap_or_default(),
    })
}

/// What the names of the outer ends of pods' pairs begin with, and no others on the node.
pub(crate) const DEVICE_PREFIX: &str = "sk";

/// Name of the outer end of an interface's pair.
pub(crate) fn host_device(container: &str, interface: &str) -> String {
    format!("{DEVICE_PREFIX}{}", &tag(container, interface)[..12])
}

impl Lease {
    /// Whose packets the addresses' are, for network policy.
    pub(crate) fn attachment(&self) -> PolicyAttachment {
        let PodName { namespace, name, uid } = self.pod.clone().unwrap_or_default();
        let device = host_device(&self.container, &self.interface);
        let addresses = self.addresses.clone();
        PolicyAttachment { namespace, name, uid, device, addresses }
    }
}

fn add(version: &str, config: &Config, call: &Call) -> Result<Value, CniError> {
    let networks = config.networks()?;
    let host_ports = config.host_ports()?;
    let netns = call.open_netns()?;
    let mut socket = Socket::route().map_err(CniError::kernel)?;
    let bridge = route::link(&mut socket, &config.bridge)
        .map_err(CniError::kernel)?
        .ok_or_else(|| CniError::later(format!("bridge {} does not exist", config.bridge)))?;

    let request = Request {
        container: &call.container,
        interface: &call.interface,
        netns: &call.netns,
        pod: call.pod.clone(),
        host_ports,
    };
    let lease = take_addresses(config, networks, &request)?;
    let gateways = networks.iter().map(|network| gateway(*network));
    let addresses: Vec<(IpAddr, IpAddr)> = lease.addresses.iter().copied().zip(gateways).collect();
    let hardware = addresses.first().map_or([0; 6], |(address, _)| hardware_address(*address));
    let host = host_device(&call.container, &call.interface);
    let pair = route::VethPair {
        host: &host,
        bridge: bridge.index,
        peer: &call.interface,
        peer_address: hardware,
        peer_netns: netns.as_fd(),
        mtu: bridge.mtu,
    };
    let policed =
        config.policy_socket.as_ref().map(|path| policy::announce(path, lease.attachment()));
    let attach = |socket: &mut Socket| -> Result<(), CniError> {
        add_pair(socket, &pair).map_err(CniError::kernel)?;
        let mut sandbox = Sandbox::enter(&netns)?;
        sandbox.loopback()?;
        // The first packet must find its policies.
        policed.map_or(Ok(()), policy::Waiting::wait).map_err(|error| {
            CniError::later(format!("network policies are not programmed for the pod: {error}"))
        })?;
        sandbox.configure(&call.interface, &addresses)?;
        let bandwidth = config.runtime_config.bandwidth;
        sandbox.limit(&call.interface, bandwidth.egress_rate)?;
        limit(socket, &host, bandwidth.ingress_rate).map_err(CniError::kernel)?;
        // The socket still belongs to the node's namespace.
        for device in [&host, &config.bridge] {
            route::wait_operational(socket, device).map_err(CniError::kernel)?;
        }
        Ok(())
    };
    if let Err(error) = attach(&mut socket) {
        // What fails now adds nothing to the error.
        let _ = route::delete_link(&mut socket, &host);
        let _ = give_back(config, &lease);
        return Err(error);
    }
    let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let attached = Attached {
        bridge: (&config.bridge, bridge.address.map(text).unwrap_or_default()),
        host: &host,
        interface: &call.interface,
        hardware_address: text(hardware),
        netns: &call.netns,
        addresses,
        mtu: bridge.mtu,
    };
    Ok(attached.to_json(version))
}

/// Limits what a device sends to `bits` a second, unless that is 0. On a kernel that cannot, the
/// pod runs without a limit: the part of skiff that watches pods says so.
pub(crate) fn limit(socket: &mut Socket, device: &str, bits: u64) -> Result<(), NetlinkError> {
    match route::link(socket, device)? {
        Some(link) if bits > 0 => {
            queue::limit(socket, link.index, queue::Bucket::of(bits)).map(drop)
        }
        _ => Ok(()),
    }
}

/// Leases addresses and opens their host ports, both under the leases' lock: whoever rebuilds the
/// table from the leases sees either neither or both.
fn take_addresses(
    config: &Config,
    networks: &[ipnet::IpNet],
    request: &Request<'_>,
) -> Result<Lease, CniError> {
    let leases = Leases::open(&config.leases_dir).map_err(lease_failed)?;
    let lease = leases.allocate(networks, request).map_err(lease_failed)?;
    if lease.host_ports.is_empty() {
        return Ok(lease);
    }
    if open_host_ports(config, &lease).is_ok() {
        return Ok(lease);
    }
    // Perhaps they are still those of a pod that vanished without a DEL.
    let retried = leases.reconcile().map_err(lease_failed).and_then(|dead| {
        dead.iter().try_for_each(|dead| close_host_ports(config, dead))?;
        open_host_ports(config, &lease)
    });
    if let Err(error) = retried {
        leases.release(request.container, request.interface).map_err(lease_failed)?;
        return Err(error);
    }
    Ok(lease)
}

/// The elements of all the lease's addresses.
fn host_port_elements(lease: &Lease) -> impl Iterator<Item = (String, String)> {
    let of = |address: &IpAddr| ruleset::host_port_elements(*address, &lease.host_ports);
    lease.addresses.iter().flat_map(of)
}

fn open_host_ports(config: &Config, lease: &Lease) -> Result<(), CniError> {
    let mut script = String::new();
    for (set, element) in host_port_elements(lease) {
        ruleset::element(&mut script, "add", &config.table, &set, &element);
    }
    nft::apply(&config.nft, &script)
        .map_err(|error| CniError::kernel(format!("open host ports: {error}")))
}

/// A pair of that name left by a killed ADD is replaced.
fn add_pair(socket: &mut Socket, pair: &route::VethPair<'_>) -> Result<(), NetlinkError> {
    match route::add_veth(socket, pair) {
        Err(NetlinkError { errno: Errno::EEXIST, .. }) => {
            route::delete_link(socket, pair.host)?;
            route::add_veth(socket, pair)
        }
        outcome => outcome,
    }
}

fn delete(config: &Config, call: &Call) -> Result<(), CniError> {
    let mut socket = Socket::route().map_err(CniError::kernel)?;
    let host = host_device(&call.container, &call.interface);
    route::delete_link(&mut socket, &host).map_err(CniError::kernel)?;
    let leases = Leases::open(&config.leases_dir).map_err(lease_failed)?;
    let lease = leases.find(&call.container, &call.interface).map_err(lease_failed)?;
    drop(leases);
    match lease {
        Some(lease) => give_back(config, &lease),
        None => Ok(()),
    }
}

/// Undoes a lease: its connections, its host ports, and last the lease itself.
fn give_back(config: &Config, lease: &Lease) -> Result<(), CniError> {
    // The pod has exited: peers learn at their next packet, and whoever gets the address next
    // does not inherit connections. Without conntrack there is nothing to forget.
    for address in &lease.addresses {
        let _ = conntrack::forget_address(*address);
    }
    let leases = Leases::open(&config.leases_dir).map_err(lease_failed)?;
    close_host_ports(config, lease)?;
    if let Some(socket) = &config.policy_socket {
        policy::retire(socket, lease.attachment().addresses);
    }
    leases.release(&lease.container, &lease.interface).map_err(lease_failed)
}

fn close_host_ports(config: &Config, lease: &Lease) -> Result<(), CniError> {
    if lease.host_ports.is_empty() {
        return Ok(());
    }
    let mut script = String::new();
    for (set, element) in host_port_elements(lease) {
        // Adding first makes deleting what is already gone no error.
        ruleset::element(&mut script, "add", &config.table, &set, &element);
        ruleset::element(&mut script, "delete", &config.table, &set, &element);
    }
    match nft::apply(&config.nft, &script) {
        // Without the table, or with the port taken over by a later pod, nothing of ours is open.
        Ok(()) | Err(nft::NftError::Refused(_)) => Ok(()),
        Err(error) => Err(CniError::kernel(format!("close host ports: {error}"))),
    }
}

fn check(config: &Config, call: &Call) -> Result<(), CniError> {
    let leases = Leases::open(&config.leases_dir).map_err(lease_failed)?;
    let lease = leases
        .find(&call.container, &call.interface)
        .map_err(lease_failed)?
        .ok_or_else(|| CniError::differs("the address lease is gone"))?;
    drop(leases);
    if let Some(previous) = &config.prev_result {
        let ips = previous["ips"].as_array();
        let address = |ip: &Value| -> Option<IpAddr> {
            ip["address"].as_str()?.split('/').next()?.parse().ok()
        };
        let told: Vec<IpAddr> = ips.into_iter().flatten().filter_map(address).collect();
        if let Some(missing) = lease.addresses.iter().find(|address| !told.contains(address)) {
            return Err(CniError::differs(format!("prevResult lacks address {missing}")));
        }
    }
    let mut socket = Socket::route().map_err(CniError::kernel)?;
    let bridge = route::link(&mut socket, &config.bridge).map_err(CniError::kernel)?;
    let host = host_device(&call.container, &call.interface);
    let outer = route::link(&mut socket, &host)
        .map_err(CniError::kernel)?
        .ok_or_else(|| CniError::differs(format!("{host} does not exist")))?;
    if outer.master.is_none() || outer.master != bridge.map(|link| link.index) {
        return Err(CniError::differs(format!("{host} is not a port of {}", config.bridge)));
    }
    Sandbox::enter(&call.open_netns()?)?.check(&call.interface, &lease.addresses)
}

/// Takes back what belongs to no attachment in use.
fn collect(config: &Config) -> Result<(), CniError> {
    let Some(valid) = &config.valid_attachments else { return Ok(()) };
    let leases = Leases::open(&config.leases_dir).map_err(lease_failed)?;
    let all = leases.list().map_err(lease_failed)?;
    drop(leases);
    let mut socket = Socket::route().map_err(CniError::kernel)?;
    for lease in all {
        let used = valid.iter().any(|attachment| {
            attachment.container_id == lease.container && attachment.ifname == lease.interface
        });
        if !used {
            let host = host_device(&lease.container, &lease.interface);
            route::delete_link(&mut socket, &host).map_err(CniError::kernel)?;
            give_back(config, &lease)?;
        }
    }
    Ok(())
}

/// Whether ADD can work now.
fn status(config: &Config) -> Result<(), CniError> {
    let mut socket = Socket::route().map_err(CniError::kernel)?;
    match route::link(&mut socket, &config.bridge).map_err(CniError::kernel)? {
        Some(link) if link.up => Ok(()),
        // The specification's "plugin not available".
        _ => {
            Err(CniError::new(50, "not available", format!("bridge {} is missing", config.bridge)))
        }
    }
}

fn add_loopback(version: &str) -> Result<Value, CniError> {
    let netns = std::env::var("CNI_NETNS").unwrap_or_default();
    Sandbox::enter(&open_netns(&netns)?)?.loopback()?;
    let mut ip = json!({ "interface": 0, "address": "127.0.0.1/8" });
    if version.starts_with("0.") {
        ip["version"] = "4".into();
    }
    Ok(json!({
        "cniVersion": version,
        "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": netns }],
        "ips": [ip],
        "dns": {},
    }))
}

fn lease_failed(error: LeaseError) -> CniError {
    match error {
        LeaseError::Busy(_) | LeaseError::Exhausted(_) => CniError::later(error),
        LeaseError::Io { what, path, source } => {
            CniError::io(format!("{what} {}: {source}", path.display()))
        }
    }
}
