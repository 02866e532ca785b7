//! Services, their endpoints and namespaces, in the shape in which names ask for them.
//!
//! Kept up to date from changes; knows nothing of DNS messages.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use client::{Change, ObjectKey};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// A named port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    /// In lower case.
    pub(crate) protocol: String,
    pub(crate) number: u16,
}

/// One ready endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    /// Its label below the Service's name: the pod's hostname, or the address with dashes.
    pub(crate) name: String,
    pub(crate) ports: Vec<Port>,
}

/// What a Service's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its cluster IPs.
    Address(Vec<IpAddr>),
    /// Its ready endpoints.
    Headless,
    /// Another name.
    External(String),
}

/// A Service.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) kind: Kind,
    pub(crate) ports: Vec<Port>,
}

/// Everything there is.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    namespaces: HashSet<String>,
    services: HashMap<ObjectKey, Known>,
    slices: HashMap<ObjectKey, BTreeMap<String, Vec<Endpoint>>>,
    by_cluster_ip: HashMap<IpAddr, BTreeSet<ObjectKey>>,
    by_endpoint: HashMap<IpAddr, BTreeSet<ObjectKey>>,
}

impl Catalog {
    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<&Known> {
        self.services.get(&ObjectKey::namespaced(namespace, name))
    }

    /// The ready endpoints of a Service; one in two slices is there once.
    pub(crate) fn endpoints(&self, namespace: &str, service: &str) -> Vec<&Endpoint> {
        let slices = self.slices.get(&ObjectKey::namespaced(namespace, service));
        let mut endpoints: Vec<&Endpoint> = Vec::new();
        for endpoint in slices.into_iter().flat_map(BTreeMap::values).flatten() {
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        endpoints
    }

    /// The names of an address below the domain, as labels.
    pub(crate) fn names_of(&self, address: IpAddr) -> Vec<Vec<String>> {
        let below =
            |key: &ObjectKey| vec![key.name.clone(), key.namespace().to_owned(), "svc".to_owned()];
        if let Some(keys) = self.by_cluster_ip.get(&address) {
            return keys.iter().map(below).collect();
        }
        let mut names = Vec::new();
        for key in self.by_endpoint.get(&address).into_iter().flatten() {
            for endpoint in self.endpoints(key.namespace(), &key.name) {
                let mut name = vec![endpoint.name.clone()];
                name.extend(below(key));
                if endpoint.address == address && !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }

    pub(crate) fn take_namespace(&mut self, change: Change<Namespace>) {
        match change.after {
            Some(_) => self.namespaces.insert(change.key.name),
            None => self.namespaces.remove(&change.key.name),
        };
    }

    pub(crate) fn take_service(&mut self, change: Change<Service>) {
        let Change { key, after, .. } = change;
        if let Some(Known { kind: Kind::Address(addresses), .. }) = self.services.remove(&key) {
            for address in addresses {
                forget(&mut self.by_cluster_ip, address, &key);
            }
        }
        let Some(known) = after.as_deref().and_then(known) else { return };
        if let Kind::Address(addresses) = &known.kind {
            for address in addresses {
                self.by_cluster_ip.entry(*address).or_default().insert(key.clone());
            }
        }
        self.services.insert(key, known);
    }

    pub(crate) fn take_slice(&mut self, change: Change<EndpointSlice>) {
        let Change { key, before, after } = change;
        let owner = |slice: &EndpointSlice| {
            let labels = slice.metadata.labels.as_ref()?;
            Some(ObjectKey::new(key.namespace.as_deref(), labels.get(SERVICE_NAME_LABEL)?))
        };
        if let Some(owner) = before.as_deref().and_then(owner) {
            self.set_slice(&owner, &key.name, Vec::new());
        }
        if let Some((owner, slice)) =
            after.as_deref().and_then(|slice| Some((owner(slice)?, slice)))
        {
            self.set_slice(&owner, &key.name, endpoints(slice));
        }
    }

    fn set_slice(&mut self, owner: &ObjectKey, slice: &str, endpoints: Vec<Endpoint>) {
        let slices = self.slices.entry(owner.clone()).or_default();
        let old = slices.remove(slice).unwrap_or_default();
        let new: HashSet<IpAddr> = endpoints.iter().map(|endpoint| endpoint.address).collect();
        if !endpoints.is_empty() {
            slices.insert(slice.to_owned(), endpoints);
        }
        let kept: HashSet<IpAddr> =
            slices.values().flatten().map(|endpoint| endpoint.address).collect();
        if slices.is_empty() {
            self.slices.remove(owner);
        }
        for endpoint in old.iter().filter(|endpoint| !kept.contains(&endpoint.address)) {
            forget(&mut self.by_endpoint, endpoint.address, owner);
        }
        for address in new {
            self.by_endpoint.entry(address).or_default().insert(owner.clone());
        }
    }
}

fn forget(index: &mut HashMap<IpAddr, BTreeSet<ObjectKey>>, address: IpAddr, key: &ObjectKey) {
    if let Some(keys) = index.get_mut(&address) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(&address);
        }
    }
}

fn known(service: &Service) -> Option<Known> {
    let spec = service.spec.as_ref()?;
    let kind = if spec.type_.as_deref() == Some("ExternalName") {
        Kind::External(spec.external_name.clone()?)
    } else {
        let all = match &spec.cluster_ips {
            Some(all) if !all.is_empty() => all.as_slice(),
            _ => spec.cluster_ip.as_slice(),
        };
        if all.iter().any(|text| text == "None") {
            Kind::Headless
        } else {
            Kind::Address(all.iter().filter_map(|text| text.parse().ok()).collect())
        }
    };
    let ports = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
                number: u16::try_from(port.port).ok()?,
            })
        })
        .collect();
    Some(Known { kind, ports })
}

fn endpoints(slice: &EndpointSlice) -> Vec<Endpoint> {
    if slice.address_type == "FQDN" {
        return Vec::new();
    }
    let ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
                number: u16::try_from(port.port?).ok()?,
            })
        })
        .collect();
    let ready = |endpoint: &&k8s_openapi::api::discovery::v1::Endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    slice
        .endpoints
        .iter()
        .flatten()
        .filter(ready)
        .filter_map(|endpoint| {
            let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
            let name = match &endpoint.hostname {
                Some(hostname) if !hostname.is_empty() => hostname.to_ascii_lowercase(),
                _ => address.to_string().replace(['.', ':'], "-"),
            };
            Some(Endpoint { address, name, ports: ports.clone() })
        })
        .collect()
}
