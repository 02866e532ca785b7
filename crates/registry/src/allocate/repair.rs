//! Puts right what transactions cannot: addresses and ports whose records somebody else removed or
//! left behind, and those of stores that were written before there were records.
//!
//! The plan is pure; every repair is a transaction that holds only while the Service is as it was
//! seen, so that several servers may do it at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use meta::time;
use serde_json::Value;
use store::{Durability, Expect, Guard, Key, Snapshot, Write};
use tokio_util::sync::CancellationToken;

use super::claims::{
    ADDRESSES, Claims, MANAGED_BY, MANAGER, PORTS, SERVICES, address_key, address_owner,
    address_record, holdings, name_of, port_key, port_record,
};
use crate::header::Header;
use crate::object::parse;
use crate::registry::Registry;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(180);

/// Repairs under way at once: the store writes down together what comes together.
const AT_ONCE: usize = 64;

/// Looks now and then until shutdown.
pub(crate) async fn run(engine: &Registry, shutdown: &CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        repair(engine).await;
    }
}

/// Looks once. What does not succeed is found again the next time.
pub(crate) async fn repair(engine: &Registry) {
    let now = time::seconds((engine.clock)());
    let repairs = futures::stream::iter(plan(&engine.store.snapshot(), &now));
    let make = |Repair { what, claims }| async move {
        let done = engine.store.commit(claims.guards, claims.writes, Durability::Durable).await;
        match done {
            Ok(_) => tracing::info!(repaired = what, "allocations of Services"),
            Err(error) => tracing::debug!(%error, what, "not repaired"),
        }
    };
    repairs.for_each_concurrent(AT_ONCE, make).await;
}

pub(super) struct Repair {
    pub(super) what: String,
    pub(super) claims: Claims,
}

/// A Service and the guard under which a repair on its account may happen.
struct Owner {
    service: Value,
    guard: Guard,
}

/// What is wrong, and what would put it right.
pub(super) fn plan(snapshot: &Snapshot<Header>, now: &str) -> Vec<Repair> {
    let mut wanted: HashMap<Key, (Arc<Owner>, Write<Header>)> = HashMap::new();
    let mut owners: HashMap<String, Arc<Owner>> = HashMap::new();
    for (key, record) in snapshot.range(SERVICES) {
        let service = parse(&record.value);
        let guard = Guard::new(key.clone(), Expect::Modified(record.modified));
        let owner = Arc::new(Owner { service, guard });
        let has = holdings(&owner.service);
        let addresses = has
            .addresses
            .into_iter()
            .map(|address| (address_key(address), address_record(address, &owner.service, now)));
        let ports =
            has.ports.into_iter().map(|port| (port_key(port), port_record(port, &owner.service)));
        for (key, record) in addresses.chain(ports) {
            let name = name_of(&owner.service);
            if let Some((other, _)) = wanted.insert(key.clone(), (Arc::clone(&owner), record)) {
                let other = name_of(&other.service);
                tracing::error!(%key, service = name, other, "two Services have the same");
            }
        }
        owners.insert(name_of(&owner.service), owner);
    }
    let mut repairs = surplus(snapshot, &wanted, &owners);
    for (key, (owner, write)) in wanted {
        if snapshot.get(&key).is_some() {
            continue;
        }
        let guards = vec![Guard::new(key.clone(), Expect::Absent), owner.guard.clone()];
        let what = format!("{key} of {} was missing", name_of(&owner.service));
        repairs.push(Repair { what, claims: Claims { guards, writes: vec![write] } });
    }
    repairs
}

/// Records of ours that say of a Service what it does not.
fn surplus(
    snapshot: &Snapshot<Header>,
    wanted: &HashMap<Key, (Arc<Owner>, Write<Header>)>,
    owners: &HashMap<String, Arc<Owner>>,
) -> Vec<Repair> {
    let addresses = snapshot
        .range(ADDRESSES)
        .filter(|(_, record)| record.note.label(MANAGED_BY) == Some(MANAGER))
        .map(|(key, record)| (key, record, address_owner(&record.value)));
    let ports = snapshot
        .range(PORTS)
        .map(|(key, record)| (key, record, String::from_utf8_lossy(&record.value).into_owned()));
    let mut repairs = Vec::new();
    for (key, record, owner) in addresses.chain(ports) {
        let right = wanted.get(key).filter(|(wanted, _)| name_of(&wanted.service) == owner);
        if right.is_some() {
            continue;
        }
        let mut guards = vec![Guard::new(key.clone(), Expect::Modified(record.modified))];
        guards.push(match owners.get(&owner) {
            Some(owner) => owner.guard.clone(),
            None => Guard::new(format!("{SERVICES}{owner}"), Expect::Absent),
        });
        let (write, what) = match wanted.get(key) {
            Some((wanted, write)) => {
                guards.push(wanted.guard.clone());
                (write.clone(), format!("{key} was of {owner}"))
            }
            None => (Write::delete(key.clone()), format!("{key} of {owner} was left over")),
        };
        repairs.push(Repair { what, claims: Claims { guards, writes: vec![write] } });
    }
    repairs
}
