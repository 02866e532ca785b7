//! The IP family fields of a Service on a cluster that has IPv4 alone.

use std::net::IpAddr;

use meta::{FieldError, FieldPath, Status};
use serde_json::{Value, json};

use super::refuse;
use crate::object::child;
use crate::strategy::service::{cluster_ip, has_cluster_ip};

/// Fills in `ipFamilyPolicy` and `ipFamilies`, and refuses what the cluster cannot give.
///
/// # Errors
/// 422 for families the cluster does not have.
pub(super) fn fill(service: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    if !has_cluster_ip(service) {
        return Ok(());
    }
    let headless = cluster_ip(service) == "None";
    let selectorless =
        service["spec"]["selector"].as_object().is_none_or(serde_json::Map::is_empty);
    let free_choice = headless && selectorless;
    let before = old.map_or(Value::Null, |old| old["spec"]["ipFamilyPolicy"].clone());
    let default = if free_choice { "RequireDualStack" } else { "SingleStack" };
    let spec = child(service, "spec");
    let policy = match spec.get("ipFamilyPolicy").and_then(Value::as_str) {
        Some(policy) => policy.to_owned(),
        None => before.as_str().unwrap_or(default).to_owned(),
    };
    spec.insert("ipFamilyPolicy".to_owned(), policy.as_str().into());
    let mut families =
        spec.get("ipFamilies").and_then(Value::as_array).cloned().unwrap_or_default();
    if families.is_empty() {
        families.push(family_of(spec.get("clusterIPs")).into());
    }
    if free_choice {
        if policy != "SingleStack" && families.len() == 1 {
            let other = if families[0] == "IPv4" { "IPv6" } else { "IPv4" };
            families.push(other.into());
        }
    } else {
        check(service, &policy, &families)?;
    }
    child(service, "spec").insert("ipFamilies".to_owned(), families.into());
    Ok(())
}

fn check(service: &Value, policy: &str, families: &[Value]) -> Result<(), Status> {
    let spec = FieldPath::new("spec");
    if policy == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        let error = FieldError::invalid(spec.child("ipFamilyPolicy"), policy, detail);
        return Err(refuse(service, error));
    }
    for (index, family) in families.iter().enumerate() {
        if family == "IPv6" {
            let path = spec.child("ipFamilies").index(index);
            let error = FieldError::invalid(path, "IPv6", "not configured on this cluster");
            return Err(refuse(service, error));
        }
    }
    Ok(())
}

/// The family of the first cluster IP; IPv4 where there is none.
fn family_of(addresses: Option<&Value>) -> &'static str {
    let first = addresses.unwrap_or(&json!(null))[0].as_str().and_then(|a| a.parse().ok());
    match first {
        Some(IpAddr::V6(_)) => "IPv6",
        _ => "IPv4",
    }
}
