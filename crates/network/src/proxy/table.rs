//! Making the kernel's table what it should be: elements when something changes, all of it at the
//! start, after a failure, and when somebody else changed it.
//!
//! Knows how to make changes; what should be in the table comes from `state`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    departed::Departed,
    element::{Entry, Key, Place, Value, encode},
    endpoints::Target,
    stale::{stale, through_service},
    state::{Delta, State},
};
use crate::{
    cni::{LeaseError, Leases},
    netlink::{
        NetlinkError, Socket, conntrack,
        nftables::{self, Data, Element, Frame, Transaction},
    },
    nft::{self, NftError},
    nodes,
    options::NetworkOptions,
    ruleset::{self, Container, Family, Names, Picker, Protocol},
};

/// Changes of more elements than this are made on a thread that may wait.
const MANY_ELEMENTS: usize = 1000;

/// Why the table was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The transaction was not made.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// Host ports could not be read.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The kernel refused or could not be asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The blocking thread panicked or was cancelled.
    #[error("the task that changes the table ended early")]
    Task,
}

/// What a look at the table found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// All is as it should be.
    Right,
    /// So many elements were not, and are now.
    Repaired(usize),
    /// Rules, chains or declarations are not.
    Broken,
}

/// The table in the kernel.
pub(crate) struct Table {
    options: Arc<NetworkOptions>,
    /// Opened when first needed, and again after a failure.
    socket: Option<Socket>,
    /// The shared chains that are there.
    pickers: BTreeSet<Picker>,
    /// The table but for its elements, as it was after our last change.
    frame: Option<Frame>,
}

impl Table {
    pub(crate) fn new(options: Arc<NetworkOptions>) -> Self {
        Self { options, socket: None, pickers: BTreeSet::new(), frame: None }
    }

    /// The address of the socket through which elements change.
    pub(crate) fn address(&self) -> u32 {
        self.socket.as_ref().map_or(0, Socket::address)
    }

    /// Makes a change; nothing runs when nothing changes. Whether rules changed, too.
    ///
    /// What elements may lead to is made before them and removed after them, so that these steps
    /// need not be one.
    pub(crate) async fn change(&mut self, delta: &Delta) -> Result<bool, TableError> {
        let (nft, table) = (&self.options.nft, &self.options.table);
        let before = delta.before(table, &self.pickers);
        let after = delta.after(table);
        let rules = !before.is_empty() || !after.is_empty();
        if !before.is_empty() {
            nft::apply_async(nft, before).await?;
        }
        self.pickers.extend(&delta.pickers);
        let mut edits = Edits::default();
        for (place, edit) in delta.elements() {
            edits.edit(place, edit.before.as_ref(), edit.after.as_ref());
        }
        let socket = self.socket.take().map_or_else(Socket::netfilter, Ok)?;
        self.socket = Some(if edits.count > MANY_ELEMENTS {
            let table = table.clone();
            blocking(move || edits.make(&table, socket)).await?
        } else {
            edits.make(table, socket)?
        });
        if !after.is_empty() {
            nft::apply_async(nft, after).await?;
        }
        if rules {
            let socket = self.socket.as_mut();
            self.frame = socket.map_or(Ok(None), |socket| nftables::frame(socket, table))?;
        }
        Ok(rules)
    }

    /// Makes the table what `state` says, whatever is there: rules in one transaction, then
    /// elements in another, so that packets find their way at every moment. Which client belongs
    /// to which endpoint is kept, where the table there is one of ours.
    pub(crate) async fn replace(&mut self, state: State) -> Result<State, (State, TableError)> {
        let options = self.options.clone();
        self.socket = None;
        let made = tokio::task::spawn_blocking(move || {
            let made = replace(&options, &state);
            (state, made)
        });
        let (state, made) = made.await.map_err(|_| (State::default(), TableError::Task))?;
        match made {
            Ok((pickers, socket, frame)) => {
                (self.pickers, self.socket, self.frame) = (pickers, Some(socket), frame);
                Ok(state)
            }
            Err(error) => Err((state, error)),
        }
    }

    /// Compares what is there to `state`, and repairs elements.
    pub(crate) async fn verify(&mut self, state: State) -> (State, Result<Seen, TableError>) {
        let options = self.options.clone();
        let frame = self.frame.clone();
        let socket = self.socket.take();
        let looked = tokio::task::spawn_blocking(move || {
            let seen = verify(&options, &state, frame.as_ref(), socket);
            (state, seen)
        });
        match looked.await {
            Ok((state, Ok((seen, socket)))) => {
                self.socket = Some(socket);
                (state, Ok(seen))
            }
            Ok((state, Err(error))) => (state, Err(error)),
            Err(_) => (State::default(), Err(TableError::Task)),
        }
    }
}

type Replaced = (BTreeSet<Picker>, Socket, Option<Frame>);

fn replace(options: &NetworkOptions, state: &State) -> Result<Replaced, TableError> {
    let table = &options.table;
    let frame = state.frame();
    let mut content = ruleset::fixed(options);
    let mut wanted = Names::of(&content);
    frame.name(&mut wanted);
    content.push_str(&frame.before(table, &BTreeSet::new()));
    // Held over the transaction, so that no port opened meanwhile is lost.
    let leases = Leases::open(&options.leases_dir())?;
    content.push_str(&host_ports(options, &leases)?);
    content.push_str(&nodes::node_addresses(options));
    tracing::debug!(bytes = content.len(), "replacing the table");
    let mut socket = Socket::netfilter()?;
    let present = nftables::frame(&mut socket, table)?;
    let reused = present.as_ref().map(|_| {
        nft::apply(&options.nft, &format!("flush table inet {table}\n{content}"))?;
        synchronize(table, state, Socket::netfilter()?)
    });
    let (mut socket, _) = match reused {
        Some(Ok(done)) => done,
        other => {
            if let Some(Err(error)) = other {
                tracing::warn!(%error, "cannot reuse the service table; making it anew");
            }
            nft::apply(&options.nft, &format!("{}{content}", ruleset::remove(table)))?;
            synchronize(table, state, Socket::netfilter()?)?
        }
    };
    drop(leases);
    if let Some(present) = present {
        let present = Names { chains: present.chains, sets: present.sets, maps: present.maps };
        let gone = present.remove_unless(table, &wanted);
        if let Err(error) = nft::apply(&options.nft, &gone) {
            tracing::debug!(%error, "cannot remove what the table no longer needs");
        }
    }
    let made = nftables::frame(&mut socket, table)?;
    Ok((frame.pickers, socket, made))
}

fn verify(
    options: &NetworkOptions,
    state: &State,
    frame: Option<&Frame>,
    socket: Option<Socket>,
) -> Result<(Seen, Socket), TableError> {
    let mut socket = socket.map_or_else(Socket::netfilter, Ok)?;
    if nftables::frame(&mut socket, &options.table)?.as_ref() != frame {
        return Ok((Seen::Broken, socket));
    }
    let (socket, wrong) = synchronize(&options.table, state, socket)?;
    Ok((if wrong == 0 { Seen::Right } else { Seen::Repaired(wrong) }, socket))
}

/// Makes the elements there those of `state`, in one transaction; returns how many were not.
fn synchronize(
    table: &str,
    state: &State,
    mut socket: Socket,
) -> Result<(Socket, usize), TableError> {
    let mut wanted: HashMap<(Container, Family), Vec<(Key, Value)>> = HashMap::new();
    for ((container, key), value) in state.elements() {
        wanted.entry((container, key.family())).or_default().push((key, value));
    }
    let mut transaction = Transaction::new(table);
    let mut count = 0;
    let mut additions = Vec::new();
    for container in Container::OF_SERVICES {
        for family in Family::BOTH {
            let set = container.name(family);
            let there = nftables::elements(&mut socket, table, &set)?;
            let mut there: HashMap<(Vec<u8>, Option<Vec<u8>>), Data> =
                there.into_iter().map(|one| ((one.key, one.end), one.data)).collect();
            let mut missing = Vec::new();
            let mut wrong = Vec::new();
            for (key, value) in wanted.remove(&(container, family)).unwrap_or_default() {
                let Element { key, end, data } = encode(&key, &value);
                let place = (key, end);
                let present = there.remove(&place);
                if present.as_ref() == Some(&data) {
                    continue;
                }
                let (key, end) = place;
                if let Some(data) = present {
                    wrong.push(Element { key: key.clone(), end: end.clone(), data });
                }
                missing.push(Element { key, end, data });
            }
            let extra = there.into_iter();
            wrong.extend(extra.map(|((key, end), data)| Element { key, end, data }));
            count += wrong.len().max(missing.len());
            transaction.delete(&set, &wrong);
            additions.push((set, missing));
        }
    }
    for (set, missing) in additions {
        transaction.add(&set, &missing);
    }
    transaction.commit(&mut socket)?;
    Ok((socket, count))
}

/// Elements to remove and to add.
#[derive(Default)]
struct Edits {
    sets: BTreeMap<(Container, Family), (Vec<Element>, Vec<Element>)>,
    count: usize,
}

impl Edits {
    fn edit(&mut self, place: &Place, before: Option<&Value>, after: Option<&Value>) {
        let (container, key) = place;
        let (gone, new) = self.sets.entry((*container, key.family())).or_default();
        gone.extend(before.map(|value| encode(key, value)));
        new.extend(after.map(|value| encode(key, value)));
        self.count += 1;
    }

    fn make(self, table: &str, mut socket: Socket) -> Result<Socket, TableError> {
        let mut transaction = Transaction::new(table);
        for ((container, family), (gone, _)) in &self.sets {
            transaction.delete(&container.name(*family), gone);
        }
        for ((container, family), (_, new)) in &self.sets {
            transaction.add(&container.name(*family), new);
        }
        transaction.commit(&mut socket)?;
        Ok(socket)
    }
}

/// Commands that make the host ports those of leased addresses. Two pods that claim one port
/// cannot both have it; the first found does.
fn host_ports(options: &NetworkOptions, leases: &Leases) -> Result<String, LeaseError> {
    let table = &options.table;
    let mut script = String::new();
    for family in Family::BOTH {
        for (kind, container) in [
            ("map", Container::HostPorts),
            ("map", Container::HostPortsAt),
            ("set", Container::HostPortHairpin),
        ] {
            let name = container.name(family);
            script.push_str(&format!("flush {kind} inet {table} {name}\n"));
        }
    }
    let mut claimed = BTreeSet::new();
    for lease in leases.list()? {
        let of =
            |address: &std::net::IpAddr| ruleset::host_port_elements(*address, &lease.host_ports);
        for (set, element) in lease.addresses.iter().flat_map(of) {
            let key = element.split(" : ").next().unwrap_or_default().to_owned();
            if claimed.insert((set.clone(), key)) {
                ruleset::element(&mut script, "add", table, &set, &element);
            }
        }
    }
    Ok(script)
}

/// Forgets UDP flows to endpoints that serve no more.
pub(crate) async fn forget_datagrams(
    entries: HashMap<Entry, BTreeSet<Target>>,
) -> Result<(), TableError> {
    if entries.is_empty() {
        return Ok(());
    }
    blocking(move || {
        let mut socket = Socket::netfilter()?;
        let mut families: Vec<Family> = entries.keys().map(|entry| entry.family()).collect();
        families.sort();
        families.dedup();
        for family in families {
            let number = Protocol::Udp.number();
            let udp = conntrack::Filter::Protocol(number, family == Family::V6);
            let mut flows = conntrack::list(&mut socket, udp)?;
            // An old kernel may ignore the filter.
            flows.retain(|flow| flow.original.protocol == number);
            let gone = stale(&flows, &entries);
            for flow in &gone {
                conntrack::delete(&mut socket, flow)?;
            }
            if !gone.is_empty() {
                tracing::debug!(flows = gone.len(), "forgot UDP flows to former endpoints");
            }
        }
        Ok(())
    })
    .await
}

/// Forgets the flows through Services that pods answered which are gone: who still talks to them
/// learns it with the next packet.
pub(crate) async fn forget_departed(departed: Vec<Departed>) -> Result<(), TableError> {
    if departed.is_empty() {
        return Ok(());
    }
    blocking(move || {
        let mut socket = Socket::netfilter()?;
        for one in departed {
            let filter = conntrack::Filter::AnsweredBy(one.address);
            let flows = conntrack::list(&mut socket, filter)?;
            let mut count = 0;
            for flow in through_service(&flows, one.address) {
                if one.ports.contains(&flow.reply.source_port) {
                    conntrack::delete(&mut socket, flow)?;
                    count += 1;
                }
            }
            tracing::debug!(pod = %one.pod, count, "forgot flows to a pod that is gone");
        }
        Ok(())
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TableError> + Send + 'static,
) -> Result<T, TableError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| TableError::Task)?
}
