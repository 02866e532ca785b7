//! Announcing addresses that Services have from a pool: one node has each, answers for it on the
//! segment by ARP and NDP, and another takes over within three seconds when it dies.
//!
//! `groups` says which addresses and which nodes, `election` who has them by Leases, `device` makes
//! it so. The address is on the node's device, whole (/32, /128), so that the kernel answers for
//! it; it is lent for seconds, so that it vanishes with the process. What happens to packets that
//! arrive is the proxy's.

mod device;
mod election;
mod frames;
mod groups;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use client::{Cache, Caches, Change, ErrorExt, ObjectKey, Select, Subscription};
use futures::FutureExt;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{Node, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{
    device::Device,
    election::{Move, Seen, decide},
    groups::{Group, groups, is_announced, is_local, may_announce},
};
use crate::proxy::LEASE_NAMESPACE;

/// How often leases are looked at while there are addresses.
const TICK: Duration = Duration::from_millis(100);
/// How often the kernel's loan of an address is extended.
const EXTEND: Duration = Duration::from_secs(1);
/// How often an address is announced right after it came, and how often while it stays.
const AT_FIRST: u32 = 5;
const AGAIN: Duration = Duration::from_secs(10);
/// No write of a lease may hold up the others for longer.
const WRITE: Duration = Duration::from_millis(1000);
/// Marks the leases, for a watch of them alone.
const LABEL: &str = "skiff.dev/announces";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const BY_SERVICE: &str = "announced-service";

/// The announcer of one node.
pub struct Announcer {
    node: String,
    caches: Caches,
    known: HashMap<String, Known>,
    here: HashMap<IpAddr, Here>,
}

/// What is known of a group's lease.
struct Known {
    spec: Option<LeaseSpec>,
    /// Its resource version; 0 where there is no lease.
    version: u64,
    unchanged: Instant,
    renewed: Option<Instant>,
    candidates: Vec<String>,
    settled: Instant,
}

/// An address that is on this node.
struct Here {
    device: Device,
    extended: Instant,
    announced: Instant,
    times: u32,
}

/// What is looked at.
struct Sources {
    services: Cache<Service>,
    nodes: Cache<Node>,
    slices: Cache<EndpointSlice>,
}

impl Sources {
    /// What is to be announced, and who may.
    fn groups(&self) -> BTreeMap<String, Group> {
        let nodes = self.nodes.list();
        let able = nodes.iter().filter(|node| may_announce(node));
        let able: BTreeSet<String> = able.filter_map(|node| node.metadata.name.clone()).collect();
        groups(&self.services.list(), &able, |service| {
            self.slices.indexed(BY_SERVICE, &ObjectKey::of(service).to_string())
        })
    }
}

/// What changes that.
struct Changes {
    services: Subscription<Service>,
    nodes: Subscription<Node>,
    slices: Subscription<EndpointSlice>,
}

impl Changes {
    /// Waits for a change; whether it is of consequence, or none at the end.
    async fn next(&mut self, services: &Cache<Service>) -> Option<bool> {
        fn either<K>(change: &Change<K>, is: impl Fn(&K) -> bool) -> bool {
            [&change.before, &change.after].into_iter().flatten().any(|one| is(one))
        }
        let local = |slice: &EndpointSlice| {
            let service = service_of(slice).and_then(|key| services.get_key(&key));
            service.is_some_and(|service| is_announced(&service) && is_local(&service))
        };
        Some(tokio::select! {
            change = self.services.next() => either(&change?, is_announced),
            change = self.slices.next() => either(&change?, local),
            change = self.nodes.next() => {
                let change = change?;
                let may = |node: &Option<Arc<Node>>| node.as_deref().is_some_and(may_announce);
                may(&change.before) != may(&change.after)
            }
        })
    }

    /// Takes in what has changed so far; whether any of it is of consequence.
    fn take(&mut self, services: &Cache<Service>) -> bool {
        let mut any = false;
        while let Some(Some(consequence)) = self.next(services).now_or_never() {
            any |= consequence;
        }
        any
    }
}

/// The Service that a slice belongs to.
fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(ObjectKey::new(slice.metadata.namespace.as_deref(), name.clone()))
}

impl Announcer {
    /// An announcer for the node of that name.
    pub fn new(node: impl Into<String>, caches: Caches) -> Self {
        Self { node: node.into(), caches, known: HashMap::new(), here: HashMap::new() }
    }

    /// Announces until shutdown; then leaves its addresses to other nodes.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let sources = Sources {
            services: self.caches.cache::<Service>(),
            nodes: self.caches.cache::<Node>(),
            slices: self.caches.cache::<EndpointSlice>(),
        };
        sources.slices.index(BY_SERVICE, |slice| {
            service_of(slice).map(|key| key.to_string()).into_iter().collect()
        });
        let api: Api<Lease> = Api::namespaced(self.caches.client(), LEASE_NAMESPACE);
        let mut changes = Changes {
            services: sources.services.subscribe(),
            nodes: sources.nodes.subscribe(),
            slices: sources.slices.subscribe(),
        };
        tokio::select! {
            () = async {
                tokio::join!(
                    sources.services.ready(),
                    sources.nodes.ready(),
                    sources.slices.ready(),
                );
            } => {}
            () = shutdown.cancelled() => return,
        }
        let (mut any, mut wanted) = (true, BTreeMap::new());
        // Leases are watched only while there is something to announce.
        let mut leases: Option<Cache<Lease>> = None;
        loop {
            // Leases have to be looked at again and again, what is to be announced only when it changes.
            if std::mem::take(&mut any) | changes.take(&sources.services) {
                wanted = sources.groups();
            }
            if !wanted.is_empty() || !self.here.is_empty() {
                let leases = leases.get_or_insert_with(|| {
                    let select = Select::all().namespace(LEASE_NAMESPACE).labels(LABEL);
                    self.caches.selected::<Lease>(select)
                });
                if leases.is_ready() {
                    self.step(&wanted, leases, &api).await;
                    self.keep(&wanted, &sources.nodes);
                }
                tokio::select! {
                    () = tokio::time::sleep(TICK) => {}
                    () = shutdown.cancelled() => break,
                }
            } else {
                leases = None;
                self.known.clear();
                tokio::select! {
                    change = changes.next(&sources.services) => match change {
                        Some(consequence) => any = consequence,
                        None => break,
                    },
                    () = shutdown.cancelled() => break,
                }
            }
        }
        self.leave(&api).await;
    }

    /// Takes, renews and releases leases, all at once.
    async fn step(
        &mut self,
        groups: &BTreeMap<String, Group>,
        leases: &Cache<Lease>,
        api: &Api<Lease>,
    ) {
        self.known.retain(|name, known| {
            groups.contains_key(name) || known.holder() == Some(self.node.as_str())
        });
        let now = Instant::now();
        let mut writes = Vec::new();
        let nobody = Group::default();
        let names: BTreeSet<String> = groups.keys().chain(self.known.keys()).cloned().collect();
        for name in names {
            let group = groups.get(&name).unwrap_or(&nobody);
            let lease = leases.get(Some(LEASE_NAMESPACE), &name);
            let known = self.known.entry(name.clone()).or_insert_with(|| Known::new(now));
            known.see(lease.as_deref(), &group.candidates, now);
            let seen = Seen {
                me: &self.node,
                candidates: &group.candidates,
                holder: known.holder(),
                unchanged: known.unchanged,
                renewed: known.renewed,
                settled: known.settled,
            };
            let holder = match decide(seen, now) {
                Move::Keep | Move::Wait => continue,
                Move::Take | Move::Renew => Some(self.node.clone()),
                Move::Release => None,
            };
            let lease = lease_of(&name, holder, known);
            writes.push(async move {
                let written = tokio::time::timeout(WRITE, write(api, &lease)).await;
                (name, written)
            });
        }
        for (name, written) in futures::future::join_all(writes).await {
            let Some(known) = self.known.get_mut(&name) else { continue };
            match written {
                Ok(Ok(lease)) => {
                    let before = known.holder() == Some(self.node.as_str());
                    let now = Instant::now();
                    known.set(&lease, now);
                    let mine = known.holder() == Some(self.node.as_str());
                    known.renewed = mine.then_some(now);
                    if mine != before {
                        tracing::info!(lease = name, announcing = mine, "announced addresses move");
                    }
                }
                // Another was quicker: the next look at the lease says who.
                Ok(Err(error)) if is_taken(&error) => {}
                // Somebody removed it: the next write makes it again.
                Ok(Err(error)) if error.is_not_found() => known.version = 0,
                Ok(Err(error)) => tracing::debug!(%error, lease = name, "cannot write the lease"),
                Err(_) => tracing::debug!(lease = name, "cannot write the lease in time"),
            }
        }
    }

    /// Has the addresses of the groups that are this node's, and no others.
    fn keep(&mut self, groups: &BTreeMap<String, Group>, nodes: &Cache<Node>) {
        let now = Instant::now();
        let mine: BTreeSet<IpAddr> = groups
            .iter()
            .filter(|(name, _)| {
                self.known.get(*name).and_then(Known::holder) == Some(self.node.as_str())
            })
            .flat_map(|(_, group)| group.addresses.iter().copied())
            .collect();
        self.here.retain(|address, here| {
            let kept = mine.contains(address);
            if !kept && let Err(error) = device::withdraw(here.device, *address) {
                tracing::warn!(%error, %address, "cannot withdraw an announced address");
            }
            kept
        });
        for address in mine {
            if let Some(here) = self.here.get_mut(&address) {
                // The device may be another by now: it is looked for again.
                if !here.go_on(address, now) {
                    self.here.remove(&address);
                }
                continue;
            }
            let own = nodes.get(None, &self.node).map(|node| own_addresses(&node));
            match device::find(address, &own.unwrap_or_default()) {
                Ok(Some(device)) => {
                    let mut here = Here { device, extended: now, announced: now, times: 0 };
                    match device::lend(device, address) {
                        Ok(()) => {
                            here.announce(address, now);
                            self.here.insert(address, here);
                        }
                        Err(error) => tracing::warn!(%error, %address, "cannot have an address"),
                    }
                }
                Ok(None) => tracing::debug!(%address, "no device for an address to announce"),
                Err(error) => tracing::warn!(%error, %address, "cannot look for a device"),
            }
        }
    }

    /// Gives everything back, so that others need not wait.
    async fn leave(&mut self, api: &Api<Lease>) {
        let mine =
            self.known.iter().filter(|(_, known)| known.holder() == Some(self.node.as_str()));
        let releases = mine.map(|(name, known)| async {
            let lease = lease_of(name, None, known);
            // Who sees the lease go takes over before the address is withdrawn here.
            let _ = tokio::time::timeout(WRITE, write(api, &lease)).await;
        });
        futures::future::join_all(releases).await;
        for (address, here) in self.here.drain() {
            let _ = device::withdraw(here.device, address);
        }
    }
}

impl Known {
    fn new(now: Instant) -> Self {
        Self {
            spec: None,
            version: 0,
            unchanged: now,
            renewed: None,
            candidates: Vec::new(),
            settled: now,
        }
    }

    fn set(&mut self, lease: &Lease, now: Instant) {
        self.spec.clone_from(&lease.spec);
        self.version = version(lease);
        self.unchanged = now;
    }

    fn holder(&self) -> Option<&str> {
        let holder = self.spec.as_ref()?.holder_identity.as_deref()?;
        (!holder.is_empty()).then_some(holder)
    }

    /// Takes in what the cache has; what was written last may not have come back yet.
    fn see(&mut self, lease: Option<&Lease>, candidates: &[String], now: Instant) {
        match lease {
            Some(lease) if version(lease) > self.version => self.set(lease, now),
            _ => {}
        }
        if self.candidates != candidates {
            self.candidates = candidates.to_vec();
            self.settled = now;
        }
    }
}

/// A lease's resource version as a number: later ones are greater.
fn version(lease: &Lease) -> u64 {
    let version = lease.metadata.resource_version.as_deref();
    version.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Here {
    /// Keeps the address and says so; false if the device has it no more.
    fn go_on(&mut self, address: IpAddr, now: Instant) -> bool {
        if now.duration_since(self.extended) >= EXTEND {
            match device::lend(self.device, address) {
                Ok(()) => self.extended = now,
                Err(error) => {
                    tracing::warn!(%error, %address, "cannot keep an address");
                    return false;
                }
            }
        }
        let due = if self.times < AT_FIRST { TICK * 2 } else { AGAIN };
        if now.duration_since(self.announced) >= due {
            self.announce(address, now);
        }
        true
    }

    fn announce(&mut self, address: IpAddr, now: Instant) {
        if let Err(error) = device::announce(self.device, address) {
            tracing::warn!(%error, %address, "cannot announce an address");
        }
        self.announced = now;
        self.times += 1;
    }
}

fn own_addresses(node: &Node) -> Vec<IpAddr> {
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_ref()).into_iter().flatten();
    addresses.filter_map(|one| one.address.parse().ok()).collect()
}

/// The lease with a new holder.
fn lease_of(name: &str, holder: Option<String>, known: &Known) -> Lease {
    let before = known.spec.as_ref();
    let now = MicroTime(Timestamp::now());
    let same = holder.as_deref() == known.holder();
    let turns = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(LEASE_NAMESPACE.to_owned()),
            labels: Some([(LABEL.to_owned(), "true".to_owned())].into()),
            resource_version: (known.version > 0).then(|| known.version.to_string()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            acquire_time: match same {
                true => before.and_then(|spec| spec.acquire_time.clone()),
                false => Some(now.clone()),
            },
            lease_duration_seconds: Some(2),
            lease_transitions: Some(if same { turns } else { turns.saturating_add(1) }),
            holder_identity: holder,
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    }
}

/// Writes a lease where nobody else has written it meanwhile.
async fn write(api: &Api<Lease>, lease: &Lease) -> Result<Lease, kube::Error> {
    let name = lease.metadata.name.as_deref().unwrap_or_default();
    match lease.metadata.resource_version.is_some() {
        true => api.replace(name, &PostParams::default(), lease).await,
        false => api.create(&PostParams::default(), lease).await,
    }
}

/// Whether somebody else was quicker.
fn is_taken(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
