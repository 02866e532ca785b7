//! Rules of what the scheduler and drivers say about a ResourceClaim: allocation, users, states of devices.

use std::collections::BTreeSet;
use std::net::IpAddr;

use meta::{FieldError, names};
use serde_json::{Value, json};

use super::claim::{MOST_CONFIGS, Names, references};
use super::{
    binding_conditions, by, configuration, itself, opaque, pool_name, set, share_id, short_list,
};
use crate::rules::at::{At, Errors, lenient_cidr};
use crate::rules::conditions::conditions;
use crate::rules::metadata::immutable;
use crate::rules::pod;
use crate::view::View;

const MOST_USERS: usize = 256;
const MOST_RESULTS: usize = 32;
const MOST_CONDITIONS: usize = 8;
const LONGEST_DATA: usize = 10 << 10;
const LONGEST_INTERFACE: usize = 256;
const LONGEST_HARDWARE_ADDRESS: usize = 128;
const MOST_ADDRESSES: usize = 16;

/// A device, and which share of it.
type Device<'a> = [&'a str; 4];

fn device<'a>(at: &At<'a>) -> Device<'a> {
    ["driver", "pool", "device", "shareID"].map(|field| at.str_of(field))
}

/// How upstream shows a device.
fn shown(at: &At<'_>) -> Value {
    let [driver, pool, name, share] = device(at);
    json!({"Driver": driver, "Pool": pool, "Device": name, "ShareID": share})
}

/// Checks a change of the status.
pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    let (status, before) = (At::root(new).field("status"), old.at("status"));
    set(&status, "reservedFor", Some(MOST_USERS), user, by("uid"), errors);
    let allocation = status.field("allocation");
    let allocated: BTreeSet<Device<'_>> =
        allocation.field("devices").each("results").map(|result| device(&result)).collect();
    let one = |at: &At<'_>, errors: &mut Errors| state(at, &allocated, errors);
    set(&status, "devices", None, one, |at| (device(at), shown(at)), errors);
    reservations(&status, new, before, errors);
    if allocation.value.is_null() {
        return;
    }
    if before.has("allocation") {
        immutable(allocation.value, before.at("allocation"), &allocation.path, errors);
    } else {
        let names = Names::of(&At::root(new).field("spec").field("devices"));
        result(&allocation, &names, errors);
    }
}

fn user(user: &At<'_>, errors: &mut Errors) {
    for field in ["resource", "name", "uid"] {
        if user.str_of(field).is_empty() {
            user.field(field).required("", errors);
        }
    }
}

fn reservations(status: &At<'_>, claim: &Value, before: &Value, errors: &mut Errors) {
    let users = status.field("reservedFor");
    if status.items("reservedFor").is_empty() {
        return;
    }
    if !status.has("allocation") {
        users.forbidden("may not be specified when `allocated` is not set", errors);
    } else if claim.at("metadata").has("deletionTimestamp") {
        let key = |user: &Value| user.to_string();
        let known: BTreeSet<String> = before.items("reservedFor").iter().map(key).collect();
        if !status.items("reservedFor").iter().all(|user| known.contains(&key(user))) {
            let text = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            users.forbidden(text, errors);
        }
    }
}

fn result(allocation: &At<'_>, names: &Names<'_>, errors: &mut Errors) {
    let devices = allocation.field("devices");
    let one = |at: &At<'_>, errors: &mut Errors| {
        names.check(&at.field("request"), errors);
        identity(at, errors);
        binding_conditions(at, errors);
        if let Some(share) = at.some("shareID") {
            share_id(&share, errors);
        }
    };
    short_list(&devices, "results", Some(MOST_RESULTS), one, errors);
    let config = |at: &At<'_>, errors: &mut Errors| {
        at.field("source").one_of(&["FromClaim", "FromClass"], errors);
        references(at, names, errors);
        configuration(at, false, errors);
    };
    short_list(&devices, "config", Some(2 * MOST_CONFIGS), config, errors);
    if let Some(selector) = allocation.some("nodeSelector") {
        pod::node_selector(&selector, errors);
    }
}

fn identity(at: &At<'_>, errors: &mut Errors) {
    at.field("driver").driver(errors);
    pool_name(&at.field("pool"), errors);
    at.field("device").check(names::is_dns1123_label, errors);
}

fn state(at: &At<'_>, allocated: &BTreeSet<Device<'_>>, errors: &mut Errors) {
    identity(at, errors);
    if let Some(share) = at.some("shareID") {
        share_id(&share, errors);
    }
    if !allocated.contains(&device(at)) {
        let text = "must be an allocated device in the claim";
        errors.push(FieldError::invalid(&at.path, shown(at), text));
    }
    at.field("conditions").no_more(MOST_CONDITIONS, errors);
    conditions(at, errors);
    if let Some(data) = at.some("data") {
        opaque(&data, Some(LONGEST_DATA), errors);
    }
    let Some(network) = at.some("networkData") else { return };
    network.field("interfaceName").no_longer(LONGEST_INTERFACE, errors);
    network.field("hardwareAddress").no_longer(LONGEST_HARDWARE_ADDRESS, errors);
    set(&network, "ips", Some(MOST_ADDRESSES), interface_address, itself, errors);
}

fn interface_address(at: &At<'_>, errors: &mut Errors) {
    let Some((ip, bits)) = lenient_cidr(at.str()) else {
        let text = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
        return at.invalid(text, errors);
    };
    let (ip, bits) = match ip {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or((ip, bits), |four| {
            (IpAddr::V4(four), if bits > 32 { bits - 96_u32.min(bits) } else { bits })
        }),
        IpAddr::V4(_) => (ip, bits),
    };
    let canonical = format!("{ip}/{bits}");
    if canonical != at.str() {
        at.invalid(format!("must be in canonical form ({canonical:?})"), errors);
    }
}
