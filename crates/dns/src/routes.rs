//! Which resolvers know a name: stub domains and upstream name servers as an administrator wrote them into the
//! ConfigMap `kube-system/kube-dns`.
//!
//! The form is that of Kubernetes' kube-dns: `stubDomains` is a JSON object of lists, `upstreamNameservers` a JSON list.
//! Pure; knows nothing of how they are asked.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hickory_proto::rr::Name;

const DNS_PORT: u16 = 53;
/// More resolvers for one domain are not asked.
const RESOLVERS: usize = 3;
/// Longer texts are refused, in bytes.
const LONGEST: usize = 64 << 10;

/// Resolvers by domain.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Routes {
    stubs: Vec<(Name, Arc<[SocketAddr]>)>,
    upstream: Option<Arc<[SocketAddr]>>,
}

impl Routes {
    /// Reads the data of the ConfigMap. What cannot be used is left out and told.
    pub(crate) fn read(data: &BTreeMap<String, String>, ours: &[IpAddr]) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let mut routes = Self::default();
        let stubs: BTreeMap<String, Vec<String>> = parse(data, "stubDomains", &mut problems);
        for (domain, servers) in stubs {
            let lower = domain.trim_end_matches('.').to_ascii_lowercase();
            let name = Name::from_ascii(format!("{lower}.")).ok().filter(|name| !name.is_root());
            let servers = resolvers(&servers, ours, &mut problems);
            match name {
                Some(name) if !servers.is_empty() => routes.stubs.push((name, servers.into())),
                Some(_) => problems.push(format!("stubDomains: {domain:?} has no usable resolver")),
                None => problems.push(format!("stubDomains: {domain:?} is no domain")),
            }
        }
        // The longest domain first: the first that fits is the closest.
        routes.stubs.sort_by_key(|(name, _)| std::cmp::Reverse(name.num_labels()));
        let upstream: Vec<String> = parse(data, "upstreamNameservers", &mut problems);
        let upstream = resolvers(&upstream, ours, &mut problems);
        routes.upstream = (!upstream.is_empty()).then(|| upstream.into());
        (routes, problems)
    }

    /// The resolvers for a name; `None` if the node's own are to be asked.
    pub(crate) fn of(&self, name: &Name) -> Option<Arc<[SocketAddr]>> {
        let stub = self.stubs.iter().find(|(domain, _)| domain.zone_of(name));
        stub.map(|(_, servers)| servers).or(self.upstream.as_ref()).cloned()
    }
}

fn parse<T: serde::de::DeserializeOwned + Default>(
    data: &BTreeMap<String, String>,
    key: &str,
    problems: &mut Vec<String>,
) -> T {
    let Some(text) = data.get(key) else { return T::default() };
    if text.len() > LONGEST {
        problems.push(format!("{key} is longer than {LONGEST} bytes"));
        return T::default();
    }
    serde_json::from_str(text).unwrap_or_else(|error| {
        problems.push(format!("{key}: {error}"));
        T::default()
    })
}

fn resolvers(texts: &[String], ours: &[IpAddr], problems: &mut Vec<String>) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for text in texts.iter().take(RESOLVERS) {
        let plain = text.parse().map(|address: IpAddr| SocketAddr::new(address, DNS_PORT)).ok();
        match plain.or_else(|| text.parse().ok()) {
            Some(address) if ours.contains(&address.ip()) => {
                problems.push(format!("{text:?} is the cluster's own DNS"));
            }
            Some(address) => found.push(address),
            None => problems.push(format!("{text:?} is no address of a resolver")),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stubs: &str, upstream: &str) -> (Routes, Vec<String>) {
        let data = [("stubDomains", stubs), ("upstreamNameservers", upstream)];
        let data = data.map(|(key, text)| (key.to_owned(), text.to_owned()));
        Routes::read(&data.into(), &["10.96.0.10".parse().expect("address")])
    }

    fn of(routes: &Routes, name: &str) -> String {
        let servers = routes.of(&Name::from_ascii(name).expect("name"));
        servers.map_or("the node's".to_owned(), |s| format!("{s:?}"))
    }

    #[test]
    fn the_closest_domain_decides() {
        let (routes, problems) = read(
            r#"{"example.com": ["192.0.2.1"], "a.Example.com.": ["192.0.2.2:5353", "2001:db8::1"]}"#,
            r#"["192.0.2.9"]"#,
        );
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(of(&routes, "x.example.com."), "[192.0.2.1:53]");
        assert_eq!(of(&routes, "x.A.example.com."), "[192.0.2.2:5353, [2001:db8::1]:53]");
        assert_eq!(of(&routes, "example.org."), "[192.0.2.9:53]");
        assert_eq!(of(&Routes::default(), "example.org."), "the node's");
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let (routes, problems) =
            read(r#"{"a.b": ["10.96.0.10"], "..": ["192.0.2.1"], "c": ["x"]}"#, "[1]");
        assert_eq!(routes, Routes::default());
        assert_eq!(problems.len(), 6, "{problems:?}");
    }
}
