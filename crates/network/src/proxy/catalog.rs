//! Services with their EndpointSlices, kept as they change.
//!
//! Knows which slice belongs to which Service, and nothing of what becomes of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use client::{Change, ObjectKey};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use meta::Revision;
use tokio::time::Instant;

use super::{
    departed::Departures,
    endpoints::{draining, ready},
};

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

#[derive(Default)]
struct Entry {
    service: Option<Arc<Service>>,
    slices: BTreeMap<String, Arc<EndpointSlice>>,
}

/// What is known of the API.
#[derive(Default)]
pub(crate) struct Catalog {
    entries: HashMap<ObjectKey, Entry>,
    /// Number of terminating endpoints of the slices that have any.
    draining: HashMap<ObjectKey, usize>,
    /// Services changed since they were last taken.
    touched: BTreeSet<ObjectKey>,
    /// Newest revision of any slice seen.
    revision: Revision,
    /// Endpoints that left, until their pods have exited.
    departures: Departures,
    /// Whether a ready endpoint became anything else since this was last taken.
    withdrawn: bool,
}

impl Catalog {
    /// Takes in a change of a Service.
    pub(crate) fn service(&mut self, change: Change<Service>) {
        self.touch(&change.key, |entry| entry.service = change.after);
    }

    /// Takes in a change of an EndpointSlice.
    pub(crate) fn slice(&mut self, change: Change<EndpointSlice>, now: Instant) {
        let Change { key, before, after } = change;
        let owner = |slice: &Arc<EndpointSlice>| {
            let labels = slice.metadata.labels.as_ref()?;
            Some(ObjectKey::new(key.namespace.as_deref(), labels.get(SERVICE_NAME_LABEL)?))
        };
        let (old, new) = (before.as_ref().and_then(owner), after.as_ref().and_then(owner));
        if let Some(old) = old.filter(|old| Some(old) != new.as_ref()) {
            self.touch(&old, |entry| drop(entry.slices.remove(&key.name)));
        }
        if let (Some(new), Some(slice)) = (new, &after) {
            self.touch(&new, |entry| drop(entry.slices.insert(key.name.clone(), slice.clone())));
        }
        self.departures.slice(before.as_deref(), after.as_deref(), now);
        if let Some(before) = &before {
            let still = after.as_deref().map(ready).unwrap_or_default();
            self.withdrawn |= !ready(before).is_subset(&still);
        }
        let version = after.as_ref().and_then(|slice| slice.metadata.resource_version.as_deref());
        if let Some(revision) = version.and_then(|text| text.parse().ok()) {
            self.revision = self.revision.max(Revision(revision));
        }
        match after.as_ref().map_or(0, |slice| draining(slice)) {
            0 => self.draining.remove(&key),
            count => self.draining.insert(key, count),
        };
    }

    /// The Services changed since the last call, with their slices; `None` for those that are gone.
    pub(crate) fn take_touched(&mut self) -> Vec<(ObjectKey, Option<Known>)> {
        std::mem::take(&mut self.touched)
            .into_iter()
            .map(|key| {
                let known = self.entries.get(&key).and_then(|entry| {
                    let service = entry.service.clone()?;
                    Some(Known { service, slices: entry.slices.values().cloned().collect() })
                });
                (key, known)
            })
            .collect()
    }

    /// Whether somebody may wait for what has been taken in: endpoints are terminating, or were
    /// withdrawn since the last call.
    pub(crate) fn take_awaited(&mut self) -> bool {
        std::mem::take(&mut self.withdrawn) || !self.draining.is_empty()
    }

    /// All Services are to be planned again.
    pub(crate) fn touch_all(&mut self) {
        self.touched.extend(self.entries.keys().cloned());
    }

    /// Endpoints that left and whose pods may still run.
    pub(crate) fn departures(&mut self) -> &mut Departures {
        &mut self.departures
    }

    /// The newest revision of any slice taken in.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    fn touch(&mut self, key: &ObjectKey, change: impl FnOnce(&mut Entry)) {
        let entry = self.entries.entry(key.clone()).or_default();
        change(entry);
        if entry.service.is_none() && entry.slices.is_empty() {
            self.entries.remove(key);
        }
        self.touched.insert(key.clone());
    }
}

/// A Service and its slices.
pub(crate) struct Known {
    pub(crate) service: Arc<Service>,
    pub(crate) slices: Vec<Arc<EndpointSlice>>,
}
