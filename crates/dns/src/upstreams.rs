//! Who to ask about names outside the cluster: the node's own resolvers, as their file says now.
//!
//! Never ourselves: a node whose file names the cluster's DNS would ask itself for ever.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use hickory_proto::rr::Name;

/// How often the file is looked at again, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The first resolvers of the file that are used (as resolv.conf(5) says).
const RESOLVERS: usize = 3;
/// Nobody's file is larger, in bytes.
const FILE_BYTES: u64 = 64 * 1024;
const DNS_PORT: u16 = 53;
/// Domains of a search path that are used.
const DOMAINS: usize = 8;

/// The resolvers.
pub(crate) struct Upstreams {
    path: PathBuf,
    ours: Vec<IpAddr>,
    state: Mutex<State>,
}

struct State {
    looked: Option<Instant>,
    modified: Option<SystemTime>,
    found: Found,
}

/// What the file says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// In the order in which they should be asked.
    pub(crate) resolvers: Arc<[SocketAddr]>,
    /// The domains in which short names are searched.
    pub(crate) search: Arc<[Name]>,
}

impl Upstreams {
    /// Resolvers named by the file at `path`, except addresses in `ours`.
    pub(crate) fn new(path: PathBuf, ours: Vec<IpAddr>) -> Self {
        let state = State { looked: None, modified: None, found: Found::default() };
        Self { path, ours, state: Mutex::new(state) }
    }

    /// These resolvers and no others, for tests.
    #[cfg(test)]
    pub(crate) fn fixed(resolvers: &[SocketAddr]) -> Self {
        let upstreams = Self::new("/nonexistent".into(), Vec::new());
        let found = Found { resolvers: resolvers.into(), ..Found::default() };
        let state = State { looked: None, modified: None, found };
        Self { state: Mutex::new(state), ..upstreams }
    }

    /// What the file says now.
    pub(crate) fn current(&self) -> Found {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.is_some_and(|looked| looked.elapsed() < LOOK_AGAIN) {
            return state.found.clone();
        }
        state.looked = Some(Instant::now());
        let metadata = fs::metadata(&self.path).ok();
        let modified = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
        if modified != state.modified {
            state.modified = modified;
            let small = metadata.is_some_and(|metadata| metadata.len() <= FILE_BYTES);
            let text = if small { fs::read_to_string(&self.path) } else { Ok(String::new()) };
            let text = text.unwrap_or_default();
            let resolvers = parse(&text, &self.ours).into();
            state.found = Found { resolvers, search: search(&text).into() };
            tracing::debug!(found = ?state.found, "read the node's resolvers");
        }
        state.found.clone()
    }
}

fn parse(text: &str, ours: &[IpAddr]) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next())?
        })
        .filter_map(|word| word.parse::<IpAddr>().ok())
        .filter(|address| !ours.contains(address))
        .map(|address| SocketAddr::new(address, DNS_PORT))
        .take(RESOLVERS)
        .collect()
}

/// The domains of the last `search` line, as resolv.conf(5) has it.
fn search(text: &str) -> Vec<Name> {
    let lines = text.lines().map(str::split_whitespace);
    let last =
        lines.filter_map(|mut words| (words.next() == Some("search")).then_some(words)).next_back();
    let domains = last.into_iter().flatten().take(DOMAINS);
    let name = |domain: &str| Name::from_ascii(format!("{}.", domain.trim_end_matches('.'))).ok();
    domains.filter_map(name).filter(|name| !name.is_root()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_except_ourselves() {
        let text = "# comment\nsearch example.com\nnameserver 10.96.0.10\nnameserver 192.0.2.1 # x\n\
                    nameserver fe80::1%eth0\n nameserver 2001:db8::1\noptions ndots:5\nnameserver\n";
        let ours = ["10.96.0.10".parse().expect("address")];
        let found: Vec<String> = parse(text, &ours).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53"]);
        let found: Vec<String> = search(text).iter().map(Name::to_ascii).collect();
        assert_eq!(found, ["example.com."]);
    }
}
