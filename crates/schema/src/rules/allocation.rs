//! Rules of ServiceCIDRs and IPAddresses (KEP-1880).

use std::net::IpAddr;

use meta::{FieldError, names};
use serde_json::Value;

use super::at::{At, Errors, is_ipv6};
use super::{Hooks, metadata};
use crate::view::View;

const IMMUTABLE: &str = "field is immutable";

/// `networking.k8s.io/v1 ServiceCIDR`.
pub(super) const SERVICE_CIDR: Hooks = Hooks {
    name: metadata::subdomain,
    prepare_create: |_| {},
    validate: |object, errors| ranges(&At::root(object).field("spec"), errors),
    validate_update: ranges_stay,
    validate_status: |_, _, _| {},
};

/// `networking.k8s.io/v1 IPAddress`: its name is the address.
pub(super) const IP_ADDRESS: Hooks = Hooks {
    name: address,
    prepare_create: |_| {},
    validate: |object, errors| parent(&At::root(object).field("spec"), errors),
    validate_update: |object, _, errors| parent(&At::root(object).field("spec"), errors),
    validate_status: |_, _, _| {},
};

fn ranges(spec: &At<'_>, errors: &mut Errors) {
    let (list, texts) = (spec.path.child("cidrs"), spec.items("cidrs"));
    let address = |text: &'_ Value| text.as_str().and_then(|t| t.split('/').next()).map(is_ipv6);
    let families: Vec<Option<bool>> = texts.iter().map(address).collect();
    match texts.len() {
        0 => errors.push(FieldError::required(&list, "at least one CIDR required")),
        3.. => {
            errors.push(FieldError::invalid(
                &list,
                spec.value.clone(),
                "may only hold up to 2 values",
            ));
        }
        2 if families[0] == families[1] => {
            let text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96";
            errors.push(FieldError::invalid(&list, spec.value.clone(), text));
        }
        _ => spec.each("cidrs").for_each(|cidr| cidr.cidr(errors)),
    }
}

/// A second range may come; nothing else changes.
fn ranges_stay(new: &Value, old: &Value, errors: &mut Errors) {
    let (after, before) = (At::root(new).field("spec"), old.at("spec"));
    let (now, then) = (after.items("cidrs"), before.items("cidrs"));
    let list = after.path.child("cidrs");
    let second_comes = now.len() == 2 && then.len() == 1;
    if now.len() != then.len() && !second_comes {
        errors.push(FieldError::invalid(&list, Value::Array(now.to_vec()), IMMUTABLE));
        return;
    }
    for (index, (now, then)) in now.iter().zip(then).enumerate() {
        if now != then {
            errors.push(FieldError::invalid(list.index(index), now.clone(), IMMUTABLE));
        }
    }
    ranges(&after, errors);
}

/// An address as it is written shortest.
fn address(name: &str, _: bool) -> Vec<String> {
    match name.parse::<IpAddr>() {
        Ok(ip) if ip.to_string() == name => Vec::new(),
        Ok(_) => vec!["must be a canonical form IP address".to_owned()],
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

fn parent(spec: &At<'_>, errors: &mut Errors) {
    let parent = spec.field("parentRef");
    if parent.value.is_null() {
        return parent.required("", errors);
    }
    let group = parent.field("group");
    if !group.str().is_empty() {
        group.check(names::is_dns1123_subdomain, errors);
    }
    for field in ["resource", "name"] {
        let at = parent.field(field);
        if at.str().is_empty() {
            at.required("", errors);
        } else {
            at.check(names::is_path_segment, errors);
        }
    }
    let namespace = parent.field("namespace");
    if !namespace.str().is_empty() {
        namespace.check(names::is_path_segment, errors);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(of: impl FnOnce(&mut Errors)) -> Vec<String> {
        let mut errors = Errors::new();
        of(&mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    fn range(cidrs: &[&str]) -> Value {
        json!({"spec": {"cidrs": cidrs}})
    }

    #[test]
    fn ranges_are_one_of_each_family_and_stay() {
        let check = |cidrs: &[&str]| said(|errors| (SERVICE_CIDR.validate)(&range(cidrs), errors));
        assert!(check(&["10.0.0.0/24", "fd00::/112"]).is_empty());
        assert_eq!(check(&[]), ["spec.cidrs: Required value: at least one CIDR required"]);
        assert!(check(&["10.0.0.0/24", "10.1.0.0/24"])[0].contains("no more than one IP for each"));
        assert!(check(&["10.0.0.0/24", "fd00::/112", "fd01::/112"])[0].contains("up to 2 values"));
        assert!(check(&["10.0.0.1/24"])[0].starts_with("spec.cidrs[0]: Invalid value"));

        let change = |from: &[&str], to: &[&str]| {
            said(|errors| (SERVICE_CIDR.validate_update)(&range(to), &range(from), errors))
        };
        assert!(change(&["10.0.0.0/24"], &["10.0.0.0/24", "fd00::/112"]).is_empty());
        let moved = change(&["10.0.0.0/24"], &["10.1.0.0/24"]);
        assert_eq!(moved, [r#"spec.cidrs[0]: Invalid value: "10.1.0.0/24": field is immutable"#]);
        assert_eq!(change(&["10.0.0.0/24", "fd00::/112"], &["10.0.0.0/24"]).len(), 1);
    }

    #[test]
    fn an_address_is_named_by_itself_and_has_a_parent() {
        assert!((IP_ADDRESS.name)("fd00::1", false).is_empty());
        for wrong in ["fd00:0::1", "010.0.0.1", "x"] {
            assert_eq!((IP_ADDRESS.name)(wrong, false).len(), 1, "{wrong}");
        }
        let check =
            |spec: Value| said(|errors| (IP_ADDRESS.validate)(&json!({ "spec": spec }), errors));
        assert!(check(json!({"parentRef": {"resource": "services", "name": "a"}})).is_empty());
        assert_eq!(check(json!({})), ["spec.parentRef: Required value"]);
        assert_eq!(check(json!({"parentRef": {"group": "A b", "resource": "a/b"}})).len(), 3);
    }
}
