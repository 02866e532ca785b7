//! Questions about the programs that skiff calls.

use std::path::PathBuf;
use std::process::Command;

use super::{Finding, Verdict};

pub(super) fn nft() -> Finding {
    let verdict = match Command::new("nft").args(["list", "tables"]).output() {
        Err(_) => Verdict::Bad("nft is not installed: apt-get install nftables".into()),
        Ok(output) if output.status.success() => Verdict::Good("nft works".into()),
        Ok(output) => Verdict::Bad(format!(
            "nft does not work ({}): the kernel needs nf_tables, and skiff must be root",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    };
    Finding { what: "nftables", verdict }
}

/// Other programs, docker and ufw among them, drop what is forwarded and not theirs.
pub(super) fn forwarding(bridge: &str) -> Finding {
    let verdict = match network::forward_drops("nft".as_ref(), bridge) {
        Ok(drops) => match drops.first() {
            None => Verdict::Good("nobody else drops packets of pods".into()),
            Some(network::ForwardDrop { chain }) => Verdict::Poor(format!(
                "the chain {chain} drops what it does not know, packets of pods among it; let them pass with: \
                 nft insert rule {chain} iifname {bridge} accept; nft insert rule {chain} oifname {bridge} accept"
            )),
        },
        Err(error) => Verdict::Poor(format!("it is unknown who drops packets of pods: {error}")),
    };
    Finding { what: "forwarding", verdict }
}

pub(super) fn runtime(program: &'static str) -> Finding {
    let verdict = match find(program) {
        Some(path) => Verdict::Good(path.display().to_string()),
        None => {
            Verdict::Bad(format!("{program} is not installed: apt-get install containerd runc"))
        }
    };
    Finding { what: program, verdict }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}
