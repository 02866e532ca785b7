//! What objects use of a ResourceQuota: which writes are measured, by which names, within which scopes, and
//! whether they fit.
//!
//! Pure functions over JSON, shared by admission, which charges, and the controller, which counts anew. Owns
//! no store and no objects but those it is given.

mod check;
mod devices;
mod scope;
mod usage;

use meta::GroupResource;
use serde_json::Value;

use crate::amounts::{OF_PODS, is_native};
use crate::view::{View, same};

pub use check::{Charge, Limited, Refusal, Write, check};
pub use devices::{Devices, pod_of};

/// Resources whose objects are never counted: those that are not stored, and events.
const UNCOUNTED: &[(&str, &str)] = &[
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("events.k8s.io", "events"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
];

/// Resources counted under their plain name too, and otherwise like any.
const SHORT: &[&str] = &["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];

const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
const OF_DEVICES: &str = ".deviceclass.resource.k8s.io/devices";
const IMPLICIT: &str = "requests.deviceclass.resource.kubernetes.io/";

/// Measures the objects of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    resource: GroupResource,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pods,
    Services,
    VolumeClaims,
    DeviceClaims,
    /// Counted only.
    Others,
}

impl Meter {
    /// The meter of a resource, unless its objects are never counted.
    #[must_use]
    pub fn of(resource: &GroupResource) -> Option<Self> {
        let key = (resource.group.as_str(), resource.resource.as_str());
        if UNCOUNTED.contains(&key) {
            return None;
        }
        let kind = match key {
            ("", "pods") => Kind::Pods,
            ("", "services") => Kind::Services,
            ("", "persistentvolumeclaims") => Kind::VolumeClaims,
            ("resource.k8s.io", "resourceclaims") => Kind::DeviceClaims,
            _ => Kind::Others,
        };
        Some(Self { resource: resource.clone(), kind })
    }

    /// The meters of all that the names in a quota's limits are about.
    #[must_use]
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        for resource in names.into_iter().flat_map(resources_of) {
            if let Some(meter) = Self::of(&resource).filter(|meter| !found.contains(meter)) {
                found.push(meter);
            }
        }
        found
    }

    /// What it measures.
    #[must_use]
    pub fn resource(&self) -> &GroupResource {
        &self.resource
    }

    /// Whether it measures claims of devices, for which [`Devices`] are to be told.
    #[must_use]
    pub fn is_of_devices(&self) -> bool {
        self.kind == Kind::DeviceClaims
    }

    /// Whether only the number of objects counts, so that nobody need look into them.
    #[must_use]
    pub fn only_counts(&self) -> bool {
        self.kind == Kind::Others
    }

    /// Whether a name in a quota's limits is about these objects.
    #[must_use]
    pub fn measures(&self, name: &str) -> bool {
        if name == self.counted_as() {
            return true;
        }
        match self.kind {
            Kind::Pods => {
                name == "pods"
                    || OF_PODS.contains(&name)
                    || name.starts_with("hugepages-")
                    || name.starts_with("requests.hugepages-")
                    || is_extended(name)
            }
            Kind::Services => {
                matches!(name, "services" | "services.loadbalancers" | "services.nodeports")
            }
            Kind::VolumeClaims => {
                let plain = name.split_once(OF_CLASS).map_or(name, |(_, rest)| rest);
                matches!(plain, "persistentvolumeclaims" | "requests.storage")
            }
            Kind::DeviceClaims => name.ends_with(OF_DEVICES) || is_extended(name),
            Kind::Others => self.short() == Some(name),
        }
    }

    /// `count/deployments.apps`.
    fn counted_as(&self) -> String {
        format!("count/{}", self.resource)
    }

    fn short(&self) -> Option<&'static str> {
        let resource = Some(&self.resource).filter(|resource| resource.group.is_empty())?;
        SHORT.iter().find(|short| **short == resource.resource).copied()
    }

    /// Whether a write can change what is used. `old` is given for changes.
    #[must_use]
    pub fn asks(&self, subresource: &str, object: &Value, old: Option<&Value>) -> bool {
        match (self.kind, subresource, old) {
            (_, "", None) => true,
            (Kind::Pods, "", Some(old)) => scope::has_deadline(object) != scope::has_deadline(old),
            (Kind::Pods, "resize", Some(_)) => true,
            (Kind::Services | Kind::DeviceClaims, "", Some(_)) => true,
            (Kind::VolumeClaims, "" | "status", Some(_)) => true,
            _ => false,
        }
    }

    /// Whether a change of an object may have given something back.
    #[must_use]
    pub fn gave_back(&self, object: &Value, old: &Value, now: jiff::Timestamp) -> bool {
        match self.kind {
            Kind::Others => false,
            _ => {
                !same(&told(&self.usage(object, now)), &told(&self.usage(old, now)))
                    || scope::has_deadline(object) != scope::has_deadline(old)
            }
        }
    }

    /// Whether the quota is about the object: it limits something that the object uses, and the object is in
    /// all of its scopes.
    #[must_use]
    pub fn matches(&self, quota: &Value, object: &Value) -> bool {
        quota.at("status").entries("hard").keys().any(|name| self.measures(name))
            && self.in_scopes(quota, object)
    }

    /// Whether the object is in all scopes of the quota.
    #[must_use]
    pub fn in_scopes(&self, quota: &Value, object: &Value) -> bool {
        scope::of_quota(quota).iter().all(|scope| self.is_in(scope, object))
    }

    fn is_in(&self, scope: &scope::Scope, object: &Value) -> bool {
        match self.kind {
            Kind::Pods => scope::holds_pod(scope, object),
            Kind::VolumeClaims => scope::holds_claim(scope, object),
            _ => false,
        }
    }
}

fn told(amounts: &crate::amounts::Amounts) -> Value {
    let texts =
        amounts.iter().map(|(name, amount)| (name.clone(), Value::from(amount.to_string())));
    texts.collect()
}

/// Whether a name is one of extended resources, of which pods and claims of devices take.
fn is_extended(name: &str) -> bool {
    name.starts_with("requests.") && (!is_native(name) || name.starts_with(IMPLICIT))
}

/// The resources that a name in a quota's limits is about.
fn resources_of(name: &str) -> Vec<GroupResource> {
    if let Some(counted) = name.strip_prefix("count/") {
        let (resource, group) = counted.split_once('.').unwrap_or((counted, ""));
        return vec![GroupResource::new(group, resource)];
    }
    let core = |resource: &str| GroupResource::new("", resource);
    let special = [
        core("pods"),
        core("services"),
        core("persistentvolumeclaims"),
        GroupResource::new("resource.k8s.io", "resourceclaims"),
    ];
    special
        .into_iter()
        .chain(SHORT.iter().map(|short| core(short)))
        .filter(|resource| Meter::of(resource).is_some_and(|meter| meter.measures(name)))
        .collect()
}

#[cfg(test)]
mod tests;
