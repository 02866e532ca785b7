//! Who else decides about forwarded packets: chains of other programs that drop what they do not
//! know, as docker and ufw make them.
//!
//! Looks and tells; other programs' tables are theirs.

use std::path::Path;

use serde::Deserialize;

use crate::nft::{self, NftError};

/// A chain that drops forwarded packets unless one of its rules accepts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardDrop {
    /// Family, table and chain as nft names them, with blanks between.
    pub chain: String,
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    chain: Option<Chain>,
}

#[derive(Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    #[serde(default)]
    hook: String,
    #[serde(default)]
    policy: String,
}

/// The chains that drop forwarded packets and have no rule that accepts those of pods on `bridge`.
pub fn forward_drops(nft: &Path, bridge: &str) -> Result<Vec<ForwardDrop>, NftError> {
    let chains = dropping(&nft::ask(nft, &["-j", "list", "chains"])?);
    let mut drops = Vec::new();
    for chain in chains {
        let words: Vec<&str> = ["list", "chain"].into_iter().chain(chain.split(' ')).collect();
        if !accepts(&nft::ask(nft, &words)?, bridge) {
            drops.push(ForwardDrop { chain });
        }
    }
    Ok(drops)
}

/// The names of the chains that drop forwarded packets by policy.
fn dropping(json: &str) -> Vec<String> {
    let Ok(listing) = serde_json::from_str::<Listing>(json) else { return Vec::new() };
    let chains = listing.nftables.into_iter().filter_map(|item| item.chain);
    chains
        .filter(|chain| chain.hook == "forward" && chain.policy == "drop")
        .filter(|chain| ["ip", "ip6", "inet"].contains(&chain.family.as_str()))
        .map(|chain| format!("{} {} {}", chain.family, chain.table, chain.name))
        .collect()
}

/// Whether a chain, as nft writes it, accepts what comes from a bridge and what goes there.
fn accepts(chain: &str, bridge: &str) -> bool {
    let accepting = |word: &str| {
        let device = format!("{word} \"{bridge}\"");
        chain.lines().any(|line| line.contains(&device) && line.trim_end().ends_with("accept"))
    };
    accepting("iifname") && accepting("oifname")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_that_drop_are_found() {
        let json = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 2,
                "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "DOCKER", "handle": 3}},
            {"chain": {"family": "inet", "table": "skiff", "name": "through", "handle": 3,
                "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}}]}"#;
        assert_eq!(dropping(json), ["ip filter FORWARD"]);
        assert!(dropping("no JSON").is_empty());
    }

    #[test]
    fn chains_that_know_the_bridge_are_fine() {
        let text = |second: &str| {
            format!(
                "table ip filter {{\n\tchain FORWARD {{\n\t\ttype filter hook forward priority filter; policy drop;\n\
                 \t\tiifname \"skiff0\" counter packets 0 bytes 0 accept\n\t\t{second}\n\t}}\n}}\n"
            )
        };
        assert!(accepts(&text("oifname \"skiff0\" accept"), "skiff0"));
        assert!(!accepts(&text("oifname \"skiff0\" drop"), "skiff0"));
        assert!(!accepts(&text("oifname \"docker0\" accept"), "skiff0"));
    }
}
