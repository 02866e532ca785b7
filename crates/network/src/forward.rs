//! Who else decides about forwarded packets: chains of other programs that drop what they do not
//! know, as docker and ufw make them.
//!
//! Looks and tells; other programs' tables are theirs.

use std::path::Path;

use crate::{
    netlink::{NetlinkError, nftables},
    nft::{self, NftError},
};

/// A chain that drops forwarded packets unless one of its rules accepts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardDrop {
    /// Family, table and chain as nft names them, with blanks between.
    pub chain: String,
}

/// Why it is not known who drops packets.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The kernel did not tell its chains.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A chain's rules could not be read.
    #[error(transparent)]
    Nft(#[from] NftError),
}

/// The chains that drop forwarded packets and have no rule that accepts those of pods on `bridge`.
///
/// # Errors
/// When the kernel or `nft` cannot be asked; `nft` is, where there are such chains.
pub fn forward_drops(nft: &Path, bridge: &str) -> Result<Vec<ForwardDrop>, ForwardError> {
    let mut drops = Vec::new();
    for names in nftables::forward_drops()? {
        let words: Vec<&str> =
            ["list", "chain"].into_iter().chain(names.iter().map(String::as_str)).collect();
        if !accepts(&nft::ask(nft, &words)?, bridge) {
            drops.push(ForwardDrop { chain: names.join(" ") });
        }
    }
    Ok(drops)
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
