//! Whether a write fits into the quotas of its namespace, and what it adds to their usage.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use meta::{GroupResource, Quantity};
use serde_json::{Map, Value};

use super::scope::{Scope, of_quota};
use super::{Devices, Meter};
use crate::amounts::{Amounts, amounts};
use crate::view::View;

/// Objects that may only be made where a quota is about them, by the server's configuration.
#[derive(Clone, Debug)]
pub struct Limited {
    resource: GroupResource,
    contains: Vec<String>,
    scopes: Vec<Scope>,
}

impl Limited {
    /// Reads one of `limitedResources` of the plugin's configuration.
    #[must_use]
    pub fn read(value: &Value) -> Self {
        let contains = value.items("matchContains").iter().filter_map(Value::as_str);
        Self {
            resource: GroupResource::new(value.text("apiGroup"), value.text("resource")),
            contains: contains.map(str::to_owned).collect(),
            scopes: value.items("matchScopes").iter().map(Scope::read).collect(),
        }
    }
}

/// A write that [`Meter::asks`] about.
pub struct Write<'a> {
    /// Measures the object.
    pub meter: &'a Meter,
    /// The subresource written, or nothing.
    pub subresource: &'a str,
    /// As it would be stored.
    pub object: &'a Value,
    /// As it is stored.
    pub old: Option<&'a Value>,
    /// What needs a quota.
    pub limited: &'a [Limited],
    /// What is known around claims of devices.
    pub devices: &'a Devices,
    /// The time of the write.
    pub now: Timestamp,
}

/// What one quota's usage becomes.
#[derive(Debug, PartialEq)]
pub struct Charge {
    /// Which of the quotas.
    pub quota: usize,
    /// Its new `status.used`.
    pub used: Value,
}

/// Why a write does not fit.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is forbidden: the reason.
    Forbidden(String),
    /// It failed otherwise: the whole message.
    Failed(String),
}

/// Decides about a write.
///
/// # Errors
/// What stands against it.
pub fn check(quotas: &[Value], write: &Write<'_>) -> Result<Vec<Charge>, Refusal> {
    let meter = write.meter;
    let mut concerned = Vec::new();
    let (mut covered, mut scopes) = (BTreeSet::new(), Vec::new());
    for (index, quota) in quotas.iter().enumerate() {
        scopes.extend(of_quota(quota).into_iter().filter(|scope| meter.is_in(scope, write.object)));
        if !meter.matches(quota, write.object) {
            continue;
        }
        let hard = quota.at("status").entries("hard");
        let mut names: Vec<&str> =
            hard.keys().map(String::as_str).filter(|name| meter.measures(name)).collect();
        names.sort_unstable();
        let name = quota.at("metadata").text("name");
        if let Some(missing) = meter.missing(&names, write.object) {
            return Err(Refusal::Forbidden(format!("failed quota: {name}: {missing}")));
        }
        let used = quota.at("status").entries("used");
        if names.iter().any(|name| !used.contains_key(*name)) {
            let names = names.join(",");
            let why = format!("status unknown for quota: {name}, resources: {names}");
            return Err(Refusal::Forbidden(why));
        }
        covered.extend(names);
        concerned.push(index);
    }
    let usage_of = |object| meter.usage_among(object, write.now, write.devices);
    let usage = usage_of(write.object);
    let negative: Vec<&str> =
        usage.iter().filter(|(_, a)| a.signum() < 0).map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() {
        let why = format!("quota usage is negative for resource(s): {}", negative.join(","));
        return Err(Refusal::Forbidden(why));
    }
    let more = write.old.map(|old| beyond(&usage, &usage_of(old)));
    let delta = |index: Option<usize>| -> Amounts {
        let was_in = |old| index.is_none_or(|index| meter.matches(&quotas[index], old));
        let delta = match (&more, write.old) {
            (Some(more), Some(old)) if was_in(old) => more,
            _ => &usage,
        };
        delta.iter().filter(|(_, a)| !a.is_zero()).map(|(n, a)| (n.clone(), *a)).collect()
    };
    let deltas: Vec<(usize, Amounts)> = concerned
        .iter()
        .map(|index| (*index, delta(Some(*index))))
        .filter(|(_, delta)| !delta.is_empty())
        .collect();
    if deltas.is_empty() && (!concerned.is_empty() || delta(None).is_empty()) {
        return Ok(Vec::new());
    }
    is_covered(write, &usage, &covered, &scopes)?;
    deltas.into_iter().map(|(index, delta)| fit(index, &quotas[index], &delta, write)).collect()
}

/// How much more is used than before; never less than nothing.
fn beyond(usage: &Amounts, before: &Amounts) -> Amounts {
    let rest = |name: &str, amount: Quantity| {
        let rest = before.get(name).map_or(amount, |before| amount - *before);
        if rest.signum() > 0 { rest } else { Quantity::ZERO }
    };
    usage.iter().map(|(name, amount)| (name.clone(), rest(name, *amount))).collect()
}

/// What needs a quota has one.
fn is_covered(
    write: &Write<'_>,
    usage: &Amounts,
    covered: &BTreeSet<&str>,
    scopes: &[Scope],
) -> Result<(), Refusal> {
    let limits = write.limited.iter().filter(|one| one.resource == *write.meter.resource());
    let uncovered: BTreeSet<&str> = limits
        .flat_map(|one| {
            let named =
                move |name: &str| one.contains.iter().any(|part| name.contains(part.as_str()));
            usage.iter().filter(move |(name, a)| a.signum() > 0 && named(name))
        })
        .map(|(name, _)| name.as_str())
        .filter(|name| !covered.contains(name))
        .collect();
    if !uncovered.is_empty() {
        let names = uncovered.into_iter().collect::<Vec<_>>().join(",");
        return Err(Refusal::Forbidden(format!("insufficient quota to consume: {names}")));
    }
    let open: Vec<String> = write
        .limited
        .iter()
        .flat_map(|one| &one.scopes)
        .filter(|scope| write.meter.is_in(scope, write.object))
        .filter(|scope| !scopes.iter().any(|known| known.name == scope.name))
        .map(Scope::told)
        .collect();
    if open.is_empty() {
        return Ok(());
    }
    Err(Refusal::Failed(format!("insufficient quota to match these scopes: [{}]", open.join(" "))))
}

/// Adds to one quota's usage, if there is room.
fn fit(index: usize, quota: &Value, delta: &Amounts, write: &Write<'_>) -> Result<Charge, Refusal> {
    let hard = amounts(quota.at("status").entries("hard"));
    let mut used = quota.at("status").entries("used").clone();
    let before = amounts(&used);
    let mut exceeded = Vec::new();
    for (name, more) in delta {
        let Some(most) = hard.get(name) else { continue };
        let new = before.get(name).copied().unwrap_or(Quantity::ZERO) + *more;
        if new > *most {
            exceeded.push(name.as_str());
        }
        used.insert(name.clone(), new.to_string().into());
    }
    if !exceeded.is_empty() && write.subresource != "status" {
        let told = |of: &Amounts| {
            let amount = |name: &&str| of.get(*name).map(|amount| format!("{name}={amount}"));
            exceeded.iter().filter_map(amount).collect::<Vec<_>>().join(",")
        };
        let name = quota.at("metadata").text("name");
        let (requested, used, limited) = (told(delta), told(&before), told(&hard));
        return Err(Refusal::Forbidden(format!(
            "exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"
        )));
    }
    let sorted: BTreeMap<_, _> = used.into_iter().collect();
    Ok(Charge { quota: index, used: sorted.into_iter().collect::<Map<_, _>>().into() })
}
