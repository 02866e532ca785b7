//! The IP families of a Service: what its fields say together, what the cluster can give
//! (KEP-563). Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use meta::{FieldError, FieldPath, Status};
use serde_json::Value;

use super::refuse_all;
use crate::object::child;
use crate::strategy::service::{has_cluster_ip, service_type};

const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";

/// The family of an address, as Services spell it.
pub(super) fn family_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn other(family: &str) -> &'static str {
    if family == "IPv4" { "IPv6" } else { "IPv4" }
}

/// The fields that belong together.
#[derive(Debug, Clone, PartialEq)]
struct Fields {
    policy: Option<String>,
    families: Vec<String>,
    addresses: Vec<String>,
}

impl Fields {
    fn of(service: &Value) -> Self {
        let list = |field: &str| -> Vec<String> {
            let items = service["spec"][field].as_array().into_iter().flatten();
            items.map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
        };
        Self {
            policy: service["spec"]["ipFamilyPolicy"].as_str().map(str::to_owned),
            families: list("ipFamilies"),
            addresses: list("clusterIPs"),
        }
    }

    /// Whether the rest of this module may take them at their word. What is wrong with those
    /// that are not is said by validation.
    fn are_well_formed(&self, service: &Value) -> bool {
        let known = |family: &String| family == "IPv4" || family == "IPv6";
        let unique = self.families.len() < 2 || self.families[0] != self.families[1];
        let policy = self.policy.as_deref().is_none_or(|p| [SINGLE, PREFER, REQUIRE].contains(&p));
        let first = self.addresses.first().map_or("", String::as_str);
        let singular = service["spec"]["clusterIP"].as_str().unwrap_or_default();
        let addresses = if first == "None" {
            self.addresses.len() == 1
        } else {
            let parsed: Option<Vec<IpAddr>> =
                self.addresses.iter().map(|address| address.parse().ok()).collect();
            parsed.is_some_and(|parsed| {
                parsed.len() <= 2
                    && (parsed.len() < 2 || parsed[0].is_ipv4() != parsed[1].is_ipv4())
                    && parsed.iter().zip(&self.families).all(|(a, family)| family_of(*a) == family)
            })
        };
        self.families.len() <= 2
            && self.families.iter().all(known)
            && unique
            && policy
            && addresses
            && singular == first
    }

    fn write(self, service: &mut Value) {
        let spec = child(service, "spec");
        if let Some(policy) = self.policy {
            spec.insert("ipFamilyPolicy".to_owned(), policy.into());
        }
        if !self.families.is_empty() {
            spec.insert("ipFamilies".to_owned(), self.families.into());
        }
        if !self.addresses.is_empty() {
            spec.insert("clusterIPs".to_owned(), self.addresses.into());
        }
    }
}

/// Fills in `ipFamilyPolicy` and `ipFamilies`, shortens what an update gives up, and refuses what
/// the cluster cannot give. Whether addresses are to be taken then.
///
/// # Errors
/// 422 for fields that contradict each other or the cluster.
pub(super) fn fill(
    service: &mut Value,
    old: Option<&Value>,
    ranges: &[IpNet],
) -> Result<bool, Status> {
    if !has_cluster_ip(service) {
        return Ok(false);
    }
    let mut fields = Fields::of(service);
    let before = old.map(Fields::of);
    // A Service that prefers two families neither gains nor loses one because the cluster did.
    let same_type = old.is_some_and(|old| service_type(old) == service_type(service));
    if same_type && before.as_ref().is_some_and(|before| stays_preferring(&fields, before)) {
        return Ok(false);
    }
    if !fields.are_well_formed(service) {
        // Left as it is, it is refused by validation.
        return Ok(false);
    }
    let headless = fields.addresses.first().is_some_and(|address| address == "None");
    let selectorless =
        service["spec"]["selector"].as_object().is_none_or(serde_json::Map::is_empty);
    let free_choice = headless && selectorless;
    let default = if free_choice { REQUIRE } else { SINGLE };
    let policy = fields
        .policy
        .clone()
        .or_else(|| before.as_ref()?.policy.clone())
        .unwrap_or_else(|| default.to_owned());
    fields.policy = Some(policy.clone());
    let given = Given { policy: &policy, value: &service["spec"], ranges };
    let mut errors = Vec::new();
    if let Some(before) = &before {
        given.release(&mut fields, before, &mut errors);
    }
    given.check_single(&fields, &mut errors);
    if !headless {
        given.infer(&mut fields, &mut errors);
    }
    if errors.is_empty() && !free_choice {
        given.check_cluster(&fields, &mut errors);
    }
    if !errors.is_empty() {
        return Err(refuse_all(service, errors));
    }
    if fields.families.is_empty() {
        let first = ranges.first().map_or("IPv4", |range| family_of(range.addr()));
        fields.families.push(first.to_owned());
    }
    if policy != SINGLE && fields.families.len() == 1 && (free_choice || ranges.len() == 2) {
        fields.families.push(other(&fields.families[0]).to_owned());
    }
    fields.write(service);
    Ok(true)
}

fn stays_preferring(fields: &Fields, before: &Fields) -> bool {
    fields.policy.as_deref() == Some(PREFER)
        && before.policy.as_deref().is_none_or(|policy| policy == PREFER)
        && fields.addresses == before.addresses
        && fields.families == before.families
}

/// What the checks look at.
struct Given<'a> {
    policy: &'a str,
    value: &'a Value,
    ranges: &'a [IpNet],
}

impl Given<'_> {
    fn has(&self, family: &str) -> bool {
        self.ranges.iter().any(|range| family_of(range.addr()) == family)
    }

    fn wrong_policy(&self, detail: &str, errors: &mut Vec<FieldError>) {
        let path = FieldPath::new("spec").child("ipFamilyPolicy");
        errors.push(FieldError::invalid(path, self.policy, detail));
    }

    /// An update to one family gives up the second; without saying so it may not.
    fn release(&self, fields: &mut Fields, before: &Fields, errors: &mut Vec<FieldError>) {
        if self.policy == SINGLE {
            if fields.addresses == before.addresses {
                fields.addresses.truncate(1);
            }
            if fields.families == before.families {
                fields.families.truncate(1);
            }
            return;
        }
        let reduced = |now: &[String], then: &[String]| !now.is_empty() && now.len() < then.len();
        if reduced(&fields.addresses, &before.addresses) {
            self.wrong_policy("must be 'SingleStack' to release the secondary cluster IP", errors);
        }
        if reduced(&fields.families, &before.families) {
            self.wrong_policy("must be 'SingleStack' to release the secondary IP family", errors);
        }
    }

    fn check_single(&self, fields: &Fields, errors: &mut Vec<FieldError>) {
        if self.policy != SINGLE {
            return;
        }
        if fields.addresses.len() == 2 {
            let detail = "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified";
            self.wrong_policy(detail, errors);
        }
        if fields.families.len() == 2 {
            let detail = "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified";
            self.wrong_policy(detail, errors);
        }
    }

    /// Takes families that are not given from the addresses that are.
    fn infer(&self, fields: &mut Fields, errors: &mut Vec<FieldError>) {
        for (index, address) in fields.addresses.iter().enumerate().skip(fields.families.len()) {
            let Ok(address) = address.parse::<IpAddr>() else { continue };
            let family = family_of(address);
            if self.has(family) {
                fields.families.push(family.to_owned());
            } else {
                let path = FieldPath::new("spec").child("clusterIPs").index(index);
                let detail = format!("{family} is not configured on this cluster");
                errors.push(FieldError::invalid(path, self.value["clusterIPs"].clone(), detail));
            }
        }
    }

    fn check_cluster(&self, fields: &Fields, errors: &mut Vec<FieldError>) {
        if self.policy == REQUIRE && self.ranges.len() < 2 {
            self.wrong_policy("this cluster is not configured for dual-stack services", errors);
        }
        for (index, family) in fields.families.iter().enumerate() {
            if !self.has(family) {
                let path = FieldPath::new("spec").child("ipFamilies").index(index);
                let detail = "not configured on this cluster";
                errors.push(FieldError::invalid(path, family.as_str(), detail));
            }
        }
    }
}
