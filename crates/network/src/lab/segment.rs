//! A segment: a switch (a bridge in a namespace of its own, where no rule of any node sees what passes)
//! and the wires from it to machines.

use std::{
    fs,
    net::IpAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Fault, Faults, LabError, Namespace, check_name, pin};
use crate::{
    netlink::{
        Socket, ip,
        route::{self, Mac},
        wire::{self, Wire},
    },
    nft,
};

/// The bridge in a segment's namespace.
const BRIDGE: &str = "switch";
const BRIDGE_ADDRESS: Mac = [0x02, 0x5c, 0, 0, 0, 1];
const ETHERNET_MTU: u32 = 1500;

/// A machine's end of a wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name on the machine.
    pub name: String,
    /// Its addresses; the networks that they are part of are then reached through it.
    pub addresses: Vec<IpNet>,
    /// Where everything else goes, one address a family at most.
    pub gateways: Vec<IpAddr>,
    /// Largest packet, in bytes.
    pub mtu: u32,
}

impl Interface {
    /// An interface with one address and no way out.
    pub fn new(name: &str, address: IpNet) -> Self {
        let (addresses, gateways) = (vec![address], Vec::new());
        Self { name: name.to_owned(), addresses, gateways, mtu: ETHERNET_MTU }
    }

    /// The same with one more address.
    pub fn address(mut self, address: IpNet) -> Self {
        self.addresses.push(address);
        self
    }

    /// The same with a way out.
    pub fn gateway(mut self, gateway: IpAddr) -> Self {
        self.gateways.push(gateway);
        self
    }

    /// Derived from the first address, so that a machine made again is the same to its neighbours.
    fn hardware_address(&self) -> Mac {
        let octets = match self.addresses.first().map(IpNet::addr) {
            Some(IpAddr::V4(address)) => address.octets(),
            Some(IpAddr::V6(address)) => {
                let octets = address.octets();
                [octets[12], octets[13], octets[14], octets[15]]
            }
            None => [0; 4],
        };
        let [a, b, c, d] = octets;
        [0x02, 0x5c, a, b, c, d]
    }
}

/// A segment that joins machines.
#[derive(Debug)]
pub struct Segment {
    namespace: Namespace,
    faults: Mutex<Faults>,
}

impl Segment {
    pub(super) fn open(path: &Path) -> Result<Self, LabError> {
        let namespace = Namespace::open(path)?;
        namespace.run(|| -> Result<(), LabError> {
            // Frames pass as they are, whatever the kernel's default.
            let _ = fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
            let _ = fs::write("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0");
            let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            let mut socket = Socket::route()?;
            Ok(route::add_bridge(&mut socket, BRIDGE, BRIDGE_ADDRESS, ETHERNET_MTU)?)
        })??;
        Ok(Self { namespace, faults: Mutex::default() })
    }

    /// Joins a namespace to the segment, at the port that is called as its machine. A wire that exists
    /// is kept; addresses and routes are given again.
    ///
    /// # Errors
    /// When a name is no device's, or the kernel refuses.
    pub fn attach(
        &self,
        port: &str,
        to: &Namespace,
        interface: &Interface,
    ) -> Result<(), LabError> {
        check_name(port)?;
        check_name(&interface.name)?;
        let netns = fs::File::open(to.path()).map_err(LabError::file("open", to.path()))?;
        self.switch(|socket| {
            if route::link(socket, port)?.is_some() {
                return Ok(());
            }
            let Some(bridge) = route::link(socket, BRIDGE)? else { return Ok(()) };
            let wire = Wire {
                here: port,
                bridge: bridge.index,
                there: &interface.name,
                address: interface.hardware_address(),
                netns: netns.as_fd(),
                mtu: interface.mtu,
            };
            Ok(wire::add_wire(socket, &wire)?)
        })?;
        to.run(|| configure(interface))?
    }

    /// Removes the wire at a port, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn detach(&self, port: &str) -> Result<(), LabError> {
        self.switch(|socket| Ok(route::delete_link(socket, port)?))
    }

    /// Takes the link at a port down, or up again: its machine sees that the cable is out.
    ///
    /// # Errors
    /// When there is no such port.
    pub fn set_link(&self, port: &str, up: bool) -> Result<(), LabError> {
        self.switch(|socket| {
            let link = route::link(socket, port)?.ok_or_else(|| LabError::Kernel {
                what: format!("find port {port}"),
                errno: nix::errno::Errno::ENODEV,
            })?;
            match up {
                true => route::set_up(socket, link.index, None)?,
                false => wire::set_down(socket, link.index)?,
            }
            Ok(())
        })
    }

    /// What happens from now on to what goes from one port to another; neither machine can tell why.
    ///
    /// # Errors
    /// When `nft` refuses; the faults are then as they were.
    pub fn set_fault(&self, from: &str, to: &str, fault: Fault) -> Result<(), LabError> {
        check_name(from)?;
        check_name(to)?;
        self.change(|faults| faults.set(from, to, fault))
    }

    /// Ends the fault from one port to another.
    ///
    /// # Errors
    /// When `nft` refuses; the faults are then as they were.
    pub fn clear_fault(&self, from: &str, to: &str) -> Result<(), LabError> {
        self.change(|faults| faults.clear(from, to))
    }

    /// Ends all faults; links that are down stay so.
    ///
    /// # Errors
    /// When `nft` refuses; the faults are then as they were.
    pub fn heal(&self) -> Result<(), LabError> {
        self.change(|faults| *faults = Faults::default())
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) -> Result<(), LabError> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = faults.clone();
        change(&mut changed);
        let script = changed.script();
        self.namespace.run(|| nft::apply(Path::new("nft"), &script))??;
        *faults = changed;
        Ok(())
    }

    fn switch<T: Send>(
        &self,
        work: impl FnOnce(&mut Socket) -> Result<T, LabError> + Send,
    ) -> Result<T, LabError> {
        self.namespace.run(|| work(&mut Socket::route()?))?
    }

    /// Removes wires, bridge and namespace. Wires first: a namespace that goes takes its devices along
    /// later, when somebody may already want their names.
    pub(super) fn remove(path: &Path) -> Result<(), LabError> {
        let mut outcome = Ok(());
        if pin::is_pinned(path) {
            outcome = Namespace::at(path).run(|| -> Result<(), LabError> {
                let mut socket = Socket::route()?;
                for link in route::links(&mut socket)?.iter().filter(|link| link.kind == "veth") {
                    route::delete_link(&mut socket, &link.name)?;
                }
                Ok(())
            })?;
        }
        outcome = outcome.and(pin::release(path));
        let _ = fs::remove_file(PathBuf::from(path));
        outcome
    }
}

/// Sets up a machine's end, on a thread in its namespace.
fn configure(interface: &Interface) -> Result<(), LabError> {
    let mut socket = Socket::route()?;
    let device = route::link(&mut socket, &interface.name)?.ok_or_else(|| LabError::Kernel {
        what: format!("find {}", interface.name),
        errno: nix::errno::Errno::ENODEV,
    })?;
    route::set_up(&mut socket, device.index, Some(interface.mtu))?;
    for address in &interface.addresses {
        ip::add_address(&mut socket, device.index, *address)?;
    }
    for gateway in &interface.gateways {
        let everything = match gateway {
            IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
            IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
        };
        let route = ip::Route::new(everything, device.index, Some(*gateway), None);
        ip::set_route(&mut socket, &route)?;
    }
    Ok(route::wait_operational(&mut socket, &interface.name)?)
}
