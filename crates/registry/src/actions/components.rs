//! ComponentStatuses: whether the parts of the control plane are well, told from what each leaves in the store.
//! Deprecated, read only, and computed anew for whoever asks.

use std::sync::Arc;

use meta::{Revision, Status, time};
use serde_json::{Value, json};
use store::{Key, Record, Snapshot};

use crate::header::Header;
use crate::object::{Object, encode};
use crate::outcome::{Answer, List, Outcome};
use crate::registry::Registry;
use crate::request::{Action, Request};
use crate::selection::Selection;

/// The names of components, and of the leases by which they lead in `kube-system`; the store has none.
const COMPONENTS: [(&str, &str); 3] = [
    ("controller-manager", "kube-controller-manager"),
    ("etcd-0", ""),
    ("scheduler", "kube-scheduler"),
];

/// Answers a get or a list.
pub(super) async fn execute(engine: &Arc<Registry>, request: &Request) -> Answer {
    let row = &request.row;
    // The store is well if it answers.
    let snapshot = engine.latest().await;
    let now = (engine.clock)();
    let unwell = |lease: &str| match (&snapshot, lease) {
        (Err(status), "") => Some(status.message.clone()),
        (Ok(snapshot), lease) if !lease.is_empty() => overdue(snapshot, lease, now),
        _ => None,
    };
    let component = |(name, lease): (&str, &str)| object(name, unwell(lease));
    if matches!(request.action, Action::Get) {
        let name = request.name.as_deref().unwrap_or_default();
        let found = COMPONENTS.into_iter().find(|(known, _)| *known == name);
        let found = found.ok_or_else(|| Status::not_found(&row.group_resource(), name))?;
        let bytes = component(found).to_json(row);
        return Ok(Outcome::Object { code: 200, bytes, identity: None, warnings: Vec::new() });
    }
    let selection = Selection::parse(row, &request.params, request.name.as_deref())?;
    let items = COMPONENTS.into_iter().map(component);
    Ok(Outcome::List(List {
        row: row.clone(),
        revision: engine.store.snapshot().revision(),
        continue_token: String::new(),
        remaining: None,
        items: items.filter(|item| selection.matches(item.key(), item.header())).collect(),
    }))
}

/// What is to be said of a component that leads by a lease, if it has not renewed it in time. One without a
/// lease runs alone, in the process that answers.
fn overdue(snapshot: &Snapshot<Header>, lease: &str, now: jiff::Timestamp) -> Option<String> {
    let key = format!("/registry/coordination.k8s.io.leases/kube-system/{lease}");
    let record = snapshot.get(&Key::new(key))?;
    let lease: Value = serde_json::from_slice(&record.value).ok()?;
    let renewed = lease["spec"]["renewTime"].as_str()?;
    let held = lease["spec"]["leaseDurationSeconds"].as_i64().unwrap_or_default();
    let ends = time::parse(renewed)?.as_second().saturating_add(held);
    (ends < now.as_second()).then(|| format!("nobody leads since {renewed}"))
}

fn object(name: &str, unwell: Option<String>) -> Object {
    let mut condition = json!({"type": "Healthy", "status": "True", "message": "ok"});
    if let Some(why) = unwell {
        condition["status"] = "False".into();
        condition["message"] = why.into();
    }
    let value = json!({"metadata": {"name": name}, "conditions": [condition]});
    let record = Record {
        value: encode(&value),
        created: Revision::ZERO,
        modified: Revision::ZERO,
        note: Header::of(&value, &[]),
    };
    Object::as_stored(Key::new(format!("/registry/componentstatuses/{name}")), Arc::new(record))
}
