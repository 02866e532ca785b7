//! Questions about the programs that skiff calls.

use std::path::PathBuf;

use super::{Finding, Verdict};

/// The kernel is asked directly: a run of nft may read every element of every table.
pub(super) fn nft() -> Finding {
    let verdict = match (network::nft_program("nft".as_ref()), network::kernel_has_nftables()) {
        (None, _) => Verdict::Bad("nft is not installed: apt-get install nftables".into()),
        (Some(path), Ok(())) => Verdict::Good(path.display().to_string()),
        (Some(_), Err(error)) => Verdict::Bad(format!(
            "nftables do not work ({error}): the kernel needs nf_tables, and skiff must be root"
        )),
    };
    Finding { what: "nftables", verdict }
}

/// By which further nodes on this machine are entered.
pub(super) fn nsenter(needed: bool) -> Finding {
    let missing = "nsenter is not installed, by which `skiff up --nodes` makes further nodes: \
                   apt-get install util-linux";
    let verdict = match find("nsenter") {
        Some(path) => Verdict::Good(path.display().to_string()),
        None if needed => Verdict::Bad(missing.into()),
        None => Verdict::Poor(missing.into()),
    };
    Finding { what: "nsenter", verdict }
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
