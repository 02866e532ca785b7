//! Which words of `skiff up`'s command line its agents are given too: those about a node, but for what
//! each node has of its own. Pure.

use clap::Args as _;

use crate::cluster::NodeFlags;

/// What each node has of its own.
const OWN: [&str; 5] = ["node-name", "node-ip", "node-external-ip", "cgroup", "runtime-socket"];

/// The words for agents among `words`, those after the program's name.
pub(super) fn for_agents(words: impl IntoIterator<Item = String>) -> Vec<String> {
    let known = NodeFlags::augment_args(clap::Command::new("agent"));
    let flag = |name: &str| known.get_arguments().find(|flag| flag.get_long() == Some(name));
    let mut taken = Vec::new();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let Some(text) = word.strip_prefix("--") else { continue };
        let (name, attached) = text.split_once('=').map_or((text, false), |(name, _)| (name, true));
        let Some(flag) = flag(name) else { continue };
        let value = if flag.get_action().takes_values() && !attached { words.next() } else { None };
        if !OWN.contains(&name) {
            taken.push(word);
            taken.extend(value);
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_told_what_is_about_every_node() {
        let line = "up --nodes 3 --node-name a --listen 0.0.0.0:7 --bridge br0 --cni=none \
                    --no-service-proxy --kubelet-port 1 --node-ip 10.0.0.1 --node-label zone=a --detach";
        let words = line.split_whitespace().map(str::to_owned);
        let wanted =
            "--bridge br0 --cni=none --no-service-proxy --kubelet-port 1 --node-label zone=a";
        assert_eq!(for_agents(words), wanted.split(' ').collect::<Vec<_>>());
        assert!(
            for_agents(["--bridge".to_owned()]).len() == 1,
            "a missing value is clap's to refuse"
        );
    }
}
