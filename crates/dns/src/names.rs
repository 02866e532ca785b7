//! What a name asks for, by its labels alone (Kubernetes DNS specification 1.1.0).
//!
//! Pure; knows no Service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A name, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked<'a> {
    /// Not of the cluster.
    Outside,
    /// The domain itself.
    Apex,
    /// `dns-version`.
    Version,
    /// `ns.dns`, the name server's own name.
    NameServer,
    /// `svc`, `pod` or `dns`: exists, holds nothing.
    Branch,
    /// `<namespace>.svc` or `<namespace>.pod`.
    Namespace(&'a str),
    /// `<service>.<namespace>.svc`.
    Service { namespace: &'a str, service: &'a str },
    /// `<endpoint>.<service>.<namespace>.svc`.
    Endpoint { namespace: &'a str, service: &'a str, endpoint: &'a str },
    /// `_<port>._<protocol>.<service>.<namespace>.svc`, without the underscores.
    Port { namespace: &'a str, service: &'a str, port: &'a str, protocol: &'a str },
    /// `_<protocol>.<service>.<namespace>.svc`: exists if the Service has such a port.
    Protocol { namespace: &'a str, service: &'a str, protocol: &'a str },
    /// `<a-b-c-d>.<namespace>.pod`; an IPv6 address has dashes for its colons.
    Pod { namespace: &'a str, address: IpAddr },
    /// The reverse name of an address.
    Reverse(IpAddr),
    /// Of the cluster, and cannot exist.
    Nothing,
}

/// Understands a name given as lower-case labels, the leftmost first. `domain` likewise.
pub(crate) fn understand<'a>(labels: &'a [String], domain: &[String]) -> Asked<'a> {
    if let Some(address) = reverse(labels) {
        return Asked::Reverse(address);
    }
    let Some(rest) = labels.strip_suffix(domain) else { return Asked::Outside };
    let rest: Vec<&'a str> = rest.iter().map(String::as_str).collect();
    match rest.as_slice() {
        [] => Asked::Apex,
        ["dns-version"] => Asked::Version,
        ["ns", "dns"] => Asked::NameServer,
        ["svc" | "pod" | "dns"] => Asked::Branch,
        [namespace, "svc" | "pod"] => Asked::Namespace(namespace),
        [service, namespace, "svc"] => Asked::Service { namespace, service },
        [first, service, namespace, "svc"] => match first.strip_prefix('_') {
            Some(protocol) => Asked::Protocol { namespace, service, protocol },
            None => Asked::Endpoint { namespace, service, endpoint: first },
        },
        [port, protocol, service, namespace, "svc"] => {
            match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(port), Some(protocol)) => Asked::Port { namespace, service, port, protocol },
                _ => Asked::Nothing,
            }
        }
        [dashed, namespace, "pod"] => match undashed(dashed) {
            Some(address) => Asked::Pod { namespace, address },
            None => Asked::Nothing,
        },
        _ => Asked::Nothing,
    }
}

fn undashed(text: &str) -> Option<IpAddr> {
    let four = text.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    four.or_else(|_| text.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

/// The address of a complete name below `in-addr.arpa` or `ip6.arpa`.
fn reverse(labels: &[String]) -> Option<IpAddr> {
    let (arpa, rest) = labels.split_last()?;
    let (family, digits) = rest.split_last()?;
    match (family.as_str(), arpa.as_str(), digits) {
        ("in-addr", "arpa", [d, c, b, a]) => {
            let octet = |label: &String| label.parse::<u8>().ok();
            Some(Ipv4Addr::new(octet(a)?, octet(b)?, octet(c)?, octet(d)?).into())
        }
        ("ip6", "arpa", nibbles) if nibbles.len() == 32 => {
            let digit = |label: &String| u128::from_str_radix(label, 16).ok().filter(|d| *d < 16);
            let bits =
                nibbles.iter().rev().try_fold(0, |bits, label| Some(bits << 4 | digit(label)?))?;
            Some(Ipv6Addr::from(bits).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: &str) {
        let labels: Vec<String> = name.split('.').map(str::to_owned).collect();
        let domain = ["cluster".to_owned(), "local".to_owned()];
        assert_eq!(format!("{:?}", understand(&labels, &domain)), expected, "{name}");
    }

    #[test]
    fn names_are_understood() {
        check("example.com", "Outside");
        check("web.shop.svc.cluster.local.example.com", "Outside");
        check("cluster.local", "Apex");
        check("svc.cluster.local", "Branch");
        check("shop.svc.cluster.local", r#"Namespace("shop")"#);
        check("web.shop.svc.cluster.local", r#"Service { namespace: "shop", service: "web" }"#);
        check(
            "db-0.db.shop.svc.cluster.local",
            r#"Endpoint { namespace: "shop", service: "db", endpoint: "db-0" }"#,
        );
        check(
            "_http._tcp.web.shop.svc.cluster.local",
            r#"Port { namespace: "shop", service: "web", port: "http", protocol: "tcp" }"#,
        );
        check(
            "_tcp.web.shop.svc.cluster.local",
            r#"Protocol { namespace: "shop", service: "web", protocol: "tcp" }"#,
        );
        check("a.b.web.shop.svc.cluster.local", "Nothing");
        check(
            "10-244-0-5.shop.pod.cluster.local",
            r#"Pod { namespace: "shop", address: 10.244.0.5 }"#,
        );
        check("10-244-0.shop.pod.cluster.local", "Nothing");
        check("web.shop.cluster.local", "Nothing");
        check("5.0.244.10.in-addr.arpa", "Reverse(10.244.0.5)");
        check("0.244.10.in-addr.arpa", "Outside");
        check("fd00--5.shop.pod.cluster.local", r#"Pod { namespace: "shop", address: fd00::5 }"#);
        let nibbles = format!("5.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
        check(&nibbles, "Reverse(fd00::5)");
        check(&nibbles[2..], "Outside");
        check("dns-version.cluster.local", "Version");
    }
}
