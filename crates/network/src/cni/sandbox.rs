//! The inside of a pod's network namespace: interfaces, addresses and routes as the pod sees them.
//!
//! Enters the namespace with the calling thread, which must therefore do nothing else afterwards:
//! true of a plugin's process, whose only thread it is.

use std::{fs::File, net::IpAddr};

use ipnet::IpNet;
use nix::sched::{CloneFlags, setns};

use super::{plugin::limit, types::CniError};
use crate::netlink::{
    NetlinkError, Socket,
    ip::{self, Route},
    route,
};

/// A network namespace entered.
pub(crate) struct Sandbox {
    socket: Socket,
}

impl Sandbox {
    /// Moves the calling thread into the namespace.
    pub(crate) fn enter(netns: &File) -> Result<Self, CniError> {
        setns(netns, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| CniError::kernel(format!("enter the network namespace: {errno}")))?;
        Ok(Self { socket: Socket::route().map_err(CniError::kernel)? })
    }

    /// Brings the loopback device up.
    pub(crate) fn loopback(&mut self) -> Result<(), CniError> {
        let up = |socket: &mut Socket| -> Result<(), NetlinkError> {
            match route::link(socket, "lo")? {
                Some(link) if !link.up => route::set_up(socket, link.index, None),
                _ => Ok(()),
            }
        };
        up(&mut self.socket).map_err(CniError::kernel)
    }

    /// Gives the interface its addresses and sends everything through their gateways.
    pub(crate) fn configure(
        &mut self,
        interface: &str,
        addresses: &[(IpAddr, IpAddr)],
    ) -> Result<(), CniError> {
        // A read-only /proc costs little: the node sends no redirects and advertisements, and an
        // image's own settings are its own matter.
        let set = |family: &str, device: &str, name: &str, value: &str| {
            let path = format!("/proc/sys/net/{family}/conf/{device}/{name}");
            let _ = std::fs::write(path, value);
        };
        // Redirects would teach the pod to bypass the node, where its Services are.
        for device in ["all", interface] {
            set("ipv4", device, "accept_redirects", "0");
        }
        if addresses.iter().any(|(address, _)| address.is_ipv6()) {
            set("ipv6", interface, "disable_ipv6", "0");
            set("ipv6", interface, "accept_redirects", "0");
            set("ipv6", interface, "accept_ra", "0");
            // The question whether an address is free takes a second, and the bridge, which may
            // send a frame back where it came from, would answer with the question itself.
            set("ipv6", interface, "accept_dad", "0");
        }
        let device = self.device(interface)?;
        let configure = |socket: &mut Socket| -> Result<(), NetlinkError> {
            route::set_up(socket, device, None)?;
            for (address, gateway) in addresses {
                ip::add_address(socket, device, IpNet::from(*address))?;
                let next = IpNet::from(*gateway);
                ip::set_route(socket, &Route::new(next, device, None, Some(*address)))?;
                let all = everything(*gateway);
                ip::set_route(socket, &Route::new(all, device, Some(*gateway), Some(*address)))?;
            }
            route::wait_operational(socket, interface)
        };
        configure(&mut self.socket).map_err(CniError::kernel)
    }

    /// Limits what the pod sends, in bits a second; 0 is no limit.
    pub(crate) fn limit(&mut self, interface: &str, bits: u64) -> Result<(), CniError> {
        limit(&mut self.socket, interface, bits).map_err(CniError::kernel)
    }

    /// Whether the interface is up, has `addresses` and the way out; says what is wrong.
    pub(crate) fn check(&mut self, interface: &str, addresses: &[IpAddr]) -> Result<(), CniError> {
        let link = route::link(&mut self.socket, interface)
            .map_err(CniError::kernel)?
            .ok_or_else(|| CniError::differs(format!("{interface} does not exist")))?;
        if !link.up {
            return Err(CniError::differs(format!("{interface} is down")));
        }
        let present = ip::addresses(&mut self.socket).map_err(CniError::kernel)?;
        let routes = ip::routes(&mut self.socket).map_err(CniError::kernel)?;
        for address in addresses {
            let has = |(on, found): &(u32, IpNet)| *on == link.index && found.addr() == *address;
            if !present.iter().any(has) {
                return Err(CniError::differs(format!("{interface} lacks address {address}")));
            }
            let all = everything(*address);
            let out = |route: &Route| route.destination == all && route.device == link.index;
            if !routes.iter().any(out) {
                let text = format!("the default route is not through {interface}");
                return Err(CniError::differs(text));
            }
        }
        Ok(())
    }

    fn device(&mut self, interface: &str) -> Result<u32, CniError> {
        route::link(&mut self.socket, interface)
            .map_err(CniError::kernel)?
            .map(|link| link.index)
            .ok_or_else(|| CniError::kernel(format!("{interface} did not appear")))
    }
}

/// All addresses of a family.
fn everything(like: IpAddr) -> IpNet {
    match like {
        IpAddr::V4(_) => ipnet::Ipv4Net::default().into(),
        IpAddr::V6(_) => ipnet::Ipv6Net::default().into(),
    }
}
