//! The inside of a pod's network namespace: interfaces, addresses and routes as the pod sees them.
//!
//! Enters the namespace with the calling thread, which must therefore do nothing else afterwards:
//! true of a plugin's process, whose only thread it is.

use std::{fs::File, net::Ipv4Addr};

use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, setns};

use super::types::CniError;
use crate::netlink::{NetlinkError, Socket, route};

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

    /// Gives the interface its address and sends everything through the gateway.
    pub(crate) fn configure(
        &mut self,
        interface: &str,
        address: Ipv4Addr,
        gateway: Ipv4Addr,
    ) -> Result<(), CniError> {
        // Redirects would teach the pod to bypass the node, where its Services are.
        for device in ["all", interface] {
            let path = format!("/proc/sys/net/ipv4/conf/{device}/accept_redirects");
            // A read-only /proc costs nothing: the node sends none.
            let _ = std::fs::write(path, "0");
        }
        let device = self.device(interface)?;
        let all = Ipv4Net::default();
        let next = Ipv4Net::from(gateway);
        let configure = |socket: &mut Socket| -> Result<(), NetlinkError> {
            route::set_up(socket, device, None)?;
            route::add_address(socket, device, Ipv4Net::from(address))?;
            route::set_route(
                socket,
                &route::Route { destination: next, device, gateway: None, source: Some(address) },
            )?;
            route::set_route(
                socket,
                &route::Route {
                    destination: all,
                    device,
                    gateway: Some(gateway),
                    source: Some(address),
                },
            )?;
            route::wait_operational(socket, interface)
        };
        configure(&mut self.socket).map_err(CniError::kernel)
    }

    /// Whether the interface is up and has `address`; says what is wrong.
    pub(crate) fn check(&mut self, interface: &str, address: Ipv4Addr) -> Result<(), CniError> {
        let link = route::link(&mut self.socket, interface)
            .map_err(CniError::kernel)?
            .ok_or_else(|| CniError::differs(format!("{interface} does not exist")))?;
        if !link.up {
            return Err(CniError::differs(format!("{interface} is down")));
        }
        let addresses = route::addresses(&mut self.socket, link.index).map_err(CniError::kernel)?;
        if !addresses.iter().any(|present| present.addr() == address) {
            return Err(CniError::differs(format!("{interface} lacks address {address}")));
        }
        let default = route::default_device(&mut self.socket).map_err(CniError::kernel)?;
        if default != Some(link.index) {
            return Err(CniError::differs(format!("the default route is not through {interface}")));
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
