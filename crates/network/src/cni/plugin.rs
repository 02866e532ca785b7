//! The plugin's process: environment and standard input in, one verb, JSON out.
//!
//! Every verb may be repeated and may be cut short at any point: what a killed ADD leaves is
//! undone by DEL, or by the next reconciliation once the namespace is gone.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::Ipv4Addr,
    os::fd::AsFd,
    path::Path,
    process::ExitCode,
};

use nix::errno::Errno;
use serde_json::{Value, json};

use super::{
    LOOPBACK_NAME, Lease, LeaseError, Leases, PLUGIN_NAME,
    lease::{Request, tag},
    sandbox::Sandbox,
    types::{Attached, CniError, Config, VERSIONS},
};
use crate::{
    netlink::{NetlinkError, Socket, conntrack, route},
    nft,
    options::{gateway, hardware_address},
    ruleset,
};

/// No configuration is larger, in bytes.
const CONFIG_BYTES: u64 = 1 << 20;
/// Longest interface name, in bytes (`IFNAMSIZ` without the NUL).
const NAME_BYTES: usize = 15;

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
}

impl Call {
    fn from_environment() -> Result<Self, CniError> {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let call = Self {
            container: variable("CNI_CONTAINERID"),
            interface: variable("CNI_IFNAME"),
            netns: variable("CNI_NETNS"),
        };
        if call.container.is_empty() {
            return Err(CniError::environment("CNI_CONTAINERID is missing"));
        }
        let name = &call.interface;
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
        if name.is_empty()
            || name.len() > NAME_BYTES
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

/// Name of the outer end of an interface's pair.
pub(crate) fn host_device(container: &str, interface: &str) -> String {
    format!("sk{}", &tag(container, interface)[..12])
}

fn add(version: &str, config: &Config, call: &Call) -> Result<Value, CniError> {
    let network = config.network()?;
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
        host_ports,
    };
    let lease = take_address(config, network, &request)?;
    let host = host_device(&call.container, &call.interface);
    let pair = route::VethPair {
        host: &host,
        bridge: bridge.index,
        peer: &call.interface,
        peer_address: hardware_address(lease.address),
        peer_netns: netns.as_fd(),
        mtu: config.mtu,
    };
    let gateway = gateway(network);
    let attach = |socket: &mut Socket| -> Result<(), CniError> {
        add_pair(socket, &pair).map_err(CniError::kernel)?;
        let mut sandbox = Sandbox::enter(&netns)?;
        sandbox.loopback()?;
        sandbox.configure(&call.interface, lease.address, gateway)?;
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
        hardware_address: text(hardware_address(lease.address)),
        netns: &call.netns,
        address: lease.address,
        gateway,
        mtu: config.mtu,
    };
    Ok(attached.to_json(version))
}

/// Leases an address and opens its host ports, both under the leases' lock: whoever rebuilds the
/// table from the leases sees either neither or both.
fn take_address(
    config: &Config,
    network: ipnet::Ipv4Net,
    request: &Request<'_>,
) -> Result<Lease, CniError> {
    let leases = Leases::open(&config.leases_dir).map_err(lease_failed)?;
    let lease = leases.allocate(network, request).map_err(lease_failed)?;
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

fn open_host_ports(config: &Config, lease: &Lease) -> Result<(), CniError> {
    let mut script = String::new();
    for (container, element) in ruleset::host_port_elements(lease.address, &lease.host_ports) {
        ruleset::element(&mut script, "add", &config.table, container, &element);
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
    let _ = conntrack::forget_address(lease.address);
    let leases = Leases::open(&config.leases_dir).map_err(lease_failed)?;
    close_host_ports(config, lease)?;
    leases.release(&lease.container, &lease.interface).map_err(lease_failed)
}

fn close_host_ports(config: &Config, lease: &Lease) -> Result<(), CniError> {
    if lease.host_ports.is_empty() {
        return Ok(());
    }
    let mut script = String::new();
    for (container, element) in ruleset::host_port_elements(lease.address, &lease.host_ports) {
        // Adding first makes deleting what is already gone no error.
        ruleset::element(&mut script, "add", &config.table, container, &element);
        ruleset::element(&mut script, "delete", &config.table, container, &element);
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
        let address = |ip: &Value| -> Option<Ipv4Addr> {
            ip["address"].as_str()?.split('/').next()?.parse().ok()
        };
        if !ips.into_iter().flatten().any(|ip| address(ip) == Some(lease.address)) {
            return Err(CniError::differs(format!("prevResult lacks address {}", lease.address)));
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
    Sandbox::enter(&call.open_netns()?)?.check(&call.interface, lease.address)
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
