//! A pod's resolver configuration from its DNS policy. Pure.

use std::net::IpAddr;

use cri::v1;
use k8s_openapi::api::core::v1 as api;

/// Upstream's bounds.
const MOST_SERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;

/// A resolver configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resolver {
    pub(crate) servers: Vec<String>,
    pub(crate) searches: Vec<String>,
    pub(crate) options: Vec<String>,
}

/// Reads the parts of a `resolv.conf` that matter.
pub(crate) fn parse(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let keyword = words.next();
        let rest: Vec<String> = words.map(str::to_owned).collect();
        match keyword {
            Some("nameserver") => resolver.servers.extend(rest.into_iter().take(1)),
            Some("search") => resolver.searches = rest,
            Some("options") => resolver.options = rest,
            _ => {}
        }
    }
    resolver
}

/// The configuration of a pod's sandbox.
pub(crate) fn config(
    pod: &api::Pod,
    host: &Resolver,
    cluster_dns: &[IpAddr],
    domain: &str,
) -> v1::DnsConfig {
    let spec = pod.spec.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let host_network = spec.host_network.unwrap_or(false);
    let cluster = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => None,
        "Default" => Some(false),
        "ClusterFirst" if host_network => Some(false),
        _ => Some(!cluster_dns.is_empty()),
    };
    let mut resolver = match cluster {
        None => Resolver::default(),
        Some(false) => host.clone(),
        Some(true) => {
            let own =
                [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
            Resolver {
                servers: cluster_dns.iter().map(ToString::to_string).collect(),
                searches: own.into_iter().chain(host.searches.iter().cloned()).collect(),
                options: vec!["ndots:5".to_owned()],
            }
        }
    };
    if let Some(extra) = spec.dns_config {
        merge(&mut resolver, extra);
    }
    dedup(&mut resolver.servers);
    dedup(&mut resolver.searches);
    resolver.servers.truncate(MOST_SERVERS);
    resolver.searches.truncate(MOST_SEARCHES);
    v1::DnsConfig {
        servers: resolver.servers,
        searches: resolver.searches,
        options: resolver.options,
    }
}

fn merge(resolver: &mut Resolver, extra: api::PodDNSConfig) {
    resolver.servers.extend(extra.nameservers.unwrap_or_default());
    resolver.searches.extend(extra.searches.unwrap_or_default());
    for option in extra.options.unwrap_or_default() {
        let Some(name) = option.name else { continue };
        let text = match option.value.filter(|v| !v.is_empty()) {
            Some(value) => format!("{name}:{value}"),
            None => name.clone(),
        };
        resolver.options.retain(|o| o.split(':').next() != Some(name.as_str()));
        resolver.options.push(text);
    }
}

fn dedup(items: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    items.retain(|item| seen.insert(item.clone()));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(spec: serde_json::Value) -> (String, String, String) {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec});
        let pod: api::Pod = serde_json::from_value(pod).unwrap();
        let host = parse("# x\nnameserver 1.1.1.1\nsearch corp.example\noptions edns0\n");
        let config = config(&pod, &host, &["10.96.0.10".parse().unwrap()], "cluster.local");
        (config.servers.join(" "), config.searches.join(" "), config.options.join(" "))
    }

    #[test]
    fn policies() {
        let cluster = check(json!({"containers": []}));
        assert_eq!(cluster.0, "10.96.0.10");
        assert_eq!(cluster.1, "n.svc.cluster.local svc.cluster.local cluster.local corp.example");
        assert_eq!(cluster.2, "ndots:5");
        let host = check(json!({"containers": [], "hostNetwork": true}));
        assert_eq!((host.0.as_str(), host.2.as_str()), ("1.1.1.1", "edns0"));
        let none = check(json!({"containers": [], "dnsPolicy": "None", "dnsConfig":
            {"nameservers": ["9.9.9.9"], "searches": ["x.y"], "options": [{"name": "ndots", "value": "2"}]}}));
        assert_eq!(none, ("9.9.9.9".into(), "x.y".into(), "ndots:2".into()));
    }
}
