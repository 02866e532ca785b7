//! The kernel's tables for policies: their fixed part, and how they are changed.
//!
//! A table of their own beside the proxy's: what fails in one does not keep the other from being
//! programmed, and the kernel checks only the chains of the table that is changed. It exists while
//! there are policies. Knows nothing of what policies say.

use std::{path::PathBuf, sync::Arc};

use super::content::{Command, Content, Verb};
use crate::{
    netlink::{
        NetlinkError, Socket,
        nftables::{self, Element, TableFamily, Transaction},
        route,
    },
    nft::{self, NftError},
    options::NetworkOptions,
};

/// Why the tables were not changed.
#[derive(Debug, thiserror::Error)]
pub enum PolicyTableError {
    /// The transaction was not made.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The kernel could not be asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The name of the tables, of families `inet` and `bridge`.
pub(crate) fn name(options: &NetworkOptions) -> String {
    format!("{}-policy", options.table)
}

/// Commands that remove the tables, whether or not they exist.
pub(crate) fn remove(options: &NetworkOptions) -> [String; 2] {
    let name = name(options);
    ["inet", "bridge"]
        .map(|family| format!("table {family} {name} {{ }}\ndelete table {family} {name}\n"))
}

/// The two tables.
pub(crate) struct Tables {
    options: Arc<NetworkOptions>,
    /// Whether the kernel knows tables of family `bridge`; unknown at first.
    bridged: Option<bool>,
}

impl Tables {
    pub(crate) fn new(options: Arc<NetworkOptions>) -> Self {
        Self { options, bridged: None }
    }

    /// Makes what has changed; nothing runs when nothing has.
    pub(crate) async fn change(
        &mut self,
        verdicts: &mut Content,
        guard: &mut Content,
    ) -> Result<(), PolicyTableError> {
        let name = name(&self.options);
        let verdicts = verdicts.take_change();
        let guard = guard.take_change();
        if let (Some(elements), Some(guarded)) = (verdicts.elements(), guard.elements()) {
            if elements.is_empty() && guarded.is_empty() {
                return Ok(());
            }
            // By far the most changes are of this kind, and need no program to make them.
            let mut transaction = Transaction::new(&name);
            fill(&mut transaction, elements);
            if self.bridged == Some(true) {
                transaction.of_bridge();
                fill(&mut transaction, guarded);
            }
            return Ok(transaction.commit(&mut Socket::netfilter()?)?);
        }
        let mut script = verdicts.script(&format!("inet {name}"));
        if self.bridged == Some(true) {
            script.push_str(&guard.script(&format!("bridge {name}")));
        }
        self.apply(script).await
    }

    /// Replaces whatever is there, in one transaction.
    pub(crate) async fn replace(
        &mut self,
        verdicts: &mut Content,
        guard: &mut Content,
    ) -> Result<(), PolicyTableError> {
        let name = name(&self.options);
        let [old, old_guard] = remove(&self.options);
        let table = format!("inet {name}");
        let script = format!("{old}{}{}", fixed(&table), verdicts.everything(&table));
        let table = format!("bridge {name}");
        let guard = match self.gateway()? {
            Some(address) if self.bridges().await? => {
                let fixed = fixed_guard(&table, &self.options.bridge, address);
                format!("{old_guard}{fixed}{}", guard.everything(&table))
            }
            _ => {
                // Nothing to take from it later.
                guard.everything(&table);
                String::new()
            }
        };
        self.apply(script + &guard).await
    }

    /// Removes both.
    pub(crate) async fn remove(&mut self) -> Result<(), PolicyTableError> {
        if !nftables::table_exists(&name(&self.options), TableFamily::Inet)?
            && !nftables::table_exists(&name(&self.options), TableFamily::Bridge)?
        {
            return Ok(());
        }
        let [verdicts, guard] = remove(&self.options);
        self.apply(verdicts).await?;
        match self.apply(guard).await {
            // A kernel without tables of that family has nothing to remove.
            Err(PolicyTableError::Nft(NftError::Refused(_))) => Ok(()),
            outcome => outcome,
        }
    }

    /// Whether the table is still there: others may flush everything.
    pub(crate) fn exists(&self) -> Result<bool, PolicyTableError> {
        Ok(nftables::table_exists(&name(&self.options), TableFamily::Inet)?)
    }

    /// Hardware address of the bridge, where there is one.
    fn gateway(&self) -> Result<Option<[u8; 6]>, PolicyTableError> {
        let bridge = route::link(&mut Socket::route()?, &self.options.bridge)?;
        Ok(bridge.and_then(|link| link.address))
    }

    /// Whether the kernel has tables of family `bridge`.
    async fn bridges(&mut self) -> Result<bool, PolicyTableError> {
        if let Some(known) = self.bridged {
            return Ok(known);
        }
        let probe = format!("{}-probe", name(&self.options));
        let script = format!(
            "table bridge {probe} {{\n  chain c {{ type filter hook prerouting priority -300; }}\n}}\n\
             delete table bridge {probe}\n"
        );
        let known = match self.apply(script).await {
            Ok(()) => true,
            Err(PolicyTableError::Nft(NftError::Refused(why))) => {
                tracing::warn!(
                    why,
                    "this kernel filters no bridged frames: a pod that crafts its own frames can \
                     reach pods of this node around network policies"
                );
                false
            }
            Err(error) => return Err(error),
        };
        self.bridged = Some(known);
        Ok(known)
    }

    async fn apply(&self, script: String) -> Result<(), PolicyTableError> {
        if script.is_empty() {
            return Ok(());
        }
        tracing::debug!(bytes = script.len(), "changing the tables of network policies");
        let nft: &PathBuf = &self.options.nft;
        Ok(nft::apply_async(nft, script).await?)
    }
}

fn fill(transaction: &mut Transaction, commands: Vec<Command<'_, Vec<Element>>>) {
    for Command { verb, set, elements } in commands {
        match verb {
            Verb::Delete => transaction.delete(set, &elements),
            Verb::Add => transaction.add(set, &elements),
        }
    }
}

/// The way of a packet that this node forwards. Policies judge connections: by the address that
/// opened one, and by the address and port that answer it after translation, for packets both
/// ways. What the node itself sends or receives passes: that is upstream's rule, and the kubelet's
/// probes are of that kind.
///
/// Egress and ingress are base chains of their own, so that "accept" in the first goes on to the
/// second, and so that the kernel, which checks all ways through jumps, need not check each way
/// into a pod behind each way out of one.
fn fixed(table: &str) -> String {
    format!(
        r#"table {table} {{
  map egress4 {{ type ipv4_addr : verdict; }}
  map egress6 {{ type ipv6_addr : verdict; }}
  map ingress4 {{ type ipv4_addr : verdict; }}
  map ingress6 {{ type ipv6_addr : verdict; }}
  set policed4 {{ type ipv4_addr; }}
  set policed6 {{ type ipv6_addr; }}
  set self4 {{ type ipv4_addr . ipv4_addr; }}
  set self6 {{ type ipv6_addr . ipv6_addr; }}
  chain deny {{
    ct state established meta l4proto tcp reject with tcp reset
    drop
  }}
  chain untracked {{
    icmpv6 type 133-137 accept
    ip saddr @policed4 drop
    ip daddr @policed4 drop
    ip6 saddr @policed6 drop
    ip6 daddr @policed6 drop
    accept
  }}
  chain opening {{
    tcp flags & (fin | syn | rst | ack) == syn return
    ct original ip saddr @policed4 reject with tcp reset
    ct reply ip saddr @policed4 reject with tcp reset
    ct original ip6 saddr @policed6 reject with tcp reset
    ct reply ip6 saddr @policed6 reject with tcp reset
  }}
  chain out {{
    type filter hook forward priority 10; policy accept;
    ct state invalid,untracked goto untracked
    ct state new meta l4proto tcp jump opening
    ct state related meta l4proto icmp accept
    ct state related meta l4proto ipv6-icmp accept
    ct original ip saddr . ct reply ip saddr @self4 accept
    ct original ip6 saddr . ct reply ip6 saddr @self6 accept
    ct original ip saddr vmap @egress4
    ct original ip6 saddr vmap @egress6
  }}
  chain in {{
    type filter hook forward priority 11; policy accept;
    ct state related meta l4proto icmp accept
    ct state related meta l4proto ipv6-icmp accept
    ct original ip saddr . ct reply ip saddr @self4 accept
    ct original ip6 saddr . ct reply ip6 saddr @self6 accept
    ct reply ip saddr vmap @ingress4
    ct reply ip6 saddr vmap @ingress6
  }}
}}
"#
    )
}

/// What a pod may send at all: packets to the node, which judges them, under its own addresses.
/// A frame that a pod addresses to its neighbour itself would be bridged past the rules above where
/// the kernel does not filter bridged traffic.
fn fixed_guard(table: &str, bridge: &str, gateway: [u8; 6]) -> String {
    let gateway = gateway.map(|byte| format!("{byte:02x}")).join(":");
    format!(
        r#"table {table} {{
  set bound4 {{ typeof iifname . ip saddr; }}
  set bound6 {{ typeof iifname . ip6 saddr; }}
  chain from-pod {{
    ether type arp iifname . arp saddr ip != @bound4 drop
    ether type ip ether daddr != {gateway} drop
    ether type ip iifname . ip saddr != @bound4 drop
    ether type ip6 ip6 daddr ff02::/16 accept
    ether type ip6 ether daddr != {gateway} drop
    ether type ip6 ip6 saddr fe80::/10 accept
    ether type ip6 iifname . ip6 saddr != @bound6 drop
  }}
  chain pods {{
    type filter hook prerouting priority -300; policy accept;
    iifname != "{bridge}" iifname "{prefix}*" jump from-pod
  }}
}}
"#,
        prefix = crate::cni::DEVICE_PREFIX,
    )
}
