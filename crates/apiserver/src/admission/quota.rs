//! ResourceQuota: what a namespace may use together. What a write adds is charged in the transaction of that
//! write, so that nothing is charged for what was not stored, and nobody gets a unit that another has.
//!
//! What objects use is `schema::quota`'s business; what is given back is counted anew by a controller.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use meta::Status;
use registry::{Admit, Attributes, Object, Operation, Row};
use schema::quota::{Devices, Limited, Meter, Refusal, Write, check, pod_of};
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Admitted, child, each, failed, fine, forbid, read, read_all};

pub(super) const NAME: &str = "ResourceQuota";

/// Writes of namespaces that share one of these wait for each other. Without turns they would only find out in
/// the store that another was first.
const TURNS: usize = 64;
/// How long a write waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// The plugin.
pub(super) struct ResourceQuota {
    limited: Vec<Limited>,
    turns: Vec<Arc<Mutex<()>>>,
}

impl ResourceQuota {
    /// With a `ResourceQuotaConfiguration`, or nothing.
    pub(super) fn configured(configuration: &Value) -> Self {
        Self {
            limited: each(configuration, "limitedResources").map(Limited::read).collect(),
            turns: (0..TURNS).map(|_| Arc::default()).collect(),
        }
    }

    async fn turn(&self, namespace: &str) -> Result<OwnedMutexGuard<()>, Status> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % TURNS as u64).unwrap_or(0);
        let waiting = self.turns[index].clone().lock_owned();
        let late = |_| Status::internal("resource quota evaluation timed out");
        tokio::time::timeout(PATIENCE, waiting).await.map_err(late)
    }

    async fn charge(
        &self,
        meter: Meter,
        attributes: &Attributes<'_>,
        object: &Value,
    ) -> Result<(), Status> {
        let namespace = attributes.namespace.unwrap_or_default();
        let turn = if attributes.dry_run { None } else { Some(self.turn(namespace).await?) };
        let Some((row, quotas)) = quotas(attributes) else { return Ok(()) };
        let mut values: Vec<Value> = quotas.iter().map(|quota| quota.value(row)).collect();
        let now = jiff::Timestamp::now();
        let devices = match meter.is_of_devices() {
            true => devices(attributes, object, now),
            false => Devices::default(),
        };
        let write = Write {
            meter: &meter,
            subresource: attributes.subresource.unwrap_or_default(),
            object,
            old: attributes.old,
            limited: &self.limited,
            devices: &devices,
            now,
        };
        let charges = check(&values, &write).map_err(|refusal| match refusal {
            Refusal::Forbidden(why) => forbid(attributes, Some(object), why),
            Refusal::Failed(why) => failed(why),
        })?;
        if charges.is_empty() {
            return Ok(());
        }
        for charge in charges {
            let value = &mut values[charge.quota];
            child(value, "status")["used"] = charge.used;
            attributes.write_along(row, &quotas[charge.quota], value);
        }
        attributes.hold(turn);
        Ok(())
    }
}

/// What is known around a claim of devices.
fn devices(attributes: &Attributes<'_>, claim: &Value, now: jiff::Timestamp) -> Devices {
    const GROUP: &str = "resource.k8s.io";
    let namespace = attributes.namespace;
    let (mut claims, mut pods) = (Vec::new(), Vec::new());
    if let Some((pod, _)) = pod_of(claim) {
        claims = read_all(attributes, GROUP, "resourceclaims", namespace);
        claims.push(claim.clone());
        pods.extend(read(attributes, "", "pods", namespace, pod));
    }
    let classes = read_all(attributes, GROUP, "deviceclasses", None);
    Devices::new(&classes, &claims, &pods, now)
}

/// The quotas of the namespace that is written to.
fn quotas<'a>(attributes: &Attributes<'a>) -> Option<(&'a Row, Vec<Object>)> {
    let row = attributes.registry.rows().by_resource("", "resourcequotas")?;
    Some((row, attributes.registry.list(row, attributes.namespace)))
}

impl Admit for ResourceQuota {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, operation: Operation, row: &Row, _: Option<&str>) -> bool {
        row.namespaced() && matches!(operation, Operation::Create | Operation::Update)
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> Admitted<'a> {
        let Some(object) = object else { return fine() };
        let none = quotas(attributes).is_none_or(|(_, quotas)| quotas.is_empty());
        if none && self.limited.is_empty() {
            return fine();
        }
        let subresource = attributes.subresource.unwrap_or_default();
        let meter = Meter::of(&attributes.row.group_resource());
        match meter.filter(|meter| meter.asks(subresource, object, attributes.old)) {
            Some(meter) => Box::pin(self.charge(meter, attributes, object)),
            None => fine(),
        }
    }
}
