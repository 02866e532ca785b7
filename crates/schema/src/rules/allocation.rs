//! Rules of ServiceCIDRs and IPAddresses (KEP-1880).

use meta::{FieldError, names};
use serde_json::{Value, json};

use super::Hooks;
use super::at::{At, Errors, is_ipv6};
use super::metadata::{IMMUTABLE, immutable};
use crate::view::View;

/// `networking.k8s.io/v1 ServiceCIDR`.
pub(super) const SERVICE_CIDR: Hooks = Hooks {
    validate: |object, errors| ranges(&At::root(object).field("spec"), errors),
    validate_update: ranges_stay,
    ..Hooks::BASE
};

/// `networking.k8s.io/v1 IPAddress`: its name is the address.
pub(super) const IP_ADDRESS: Hooks = Hooks {
    name: address,
    validate: |object, errors| parent(&At::root(object).field("spec"), errors),
    validate_update: |object, old, errors| {
        let spec = At::root(object).field("spec");
        parent(&spec, errors);
        let path = spec.path.child("parentRef");
        immutable(spec.at("parentRef"), old.at("spec").at("parentRef"), path, errors);
    },
    ..Hooks::BASE
};

fn ranges(spec: &At<'_>, errors: &mut Errors) {
    let (list, texts) = (spec.field("cidrs"), spec.items("cidrs"));
    if texts.is_empty() {
        return list.required("at least one CIDR required", errors);
    }
    if texts.len() > 2 {
        let value = json!({"CIDRs": list.value});
        let text = "may only hold up to 2 values";
        return errors.push(FieldError::invalid(&list.path, value, text));
    }
    spec.each("cidrs").for_each(|cidr| cidr.canonical_cidr(errors));
    let family = |text: &Value| {
        let (ip, _) = super::at::lenient_cidr(text.as_str()?)?;
        Some(is_ipv6(&ip.to_string()))
    };
    if let [first, second] = texts
        && family(first).is_some()
        && family(first) == family(second)
    {
        let text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        list.invalid(text, errors);
    }
}

/// A second range may come; nothing else changes.
fn ranges_stay(new: &Value, old: &Value, errors: &mut Errors) {
    let (after, before) = (At::root(new).field("spec"), old.at("spec"));
    let (now, then) = (after.items("cidrs"), before.items("cidrs"));
    let second_comes = now.len() == 2 && then.len() == 1;
    if now.len() != then.len() && !second_comes {
        return after.field("cidrs").invalid(IMMUTABLE, errors);
    }
    for (cidr, then) in after.each("cidrs").zip(then) {
        if cidr.value != then {
            cidr.invalid(IMMUTABLE, errors);
        }
    }
    if second_comes {
        ranges(&after, errors);
    }
}

/// An address as it is written shortest.
fn address(name: &str, _: bool) -> Vec<String> {
    let (mut errors, value) = (Errors::new(), Value::from(name));
    At::root(&value).canonical_ip(&mut errors);
    errors.into_iter().map(|error| error.detail).collect()
}

fn parent(spec: &At<'_>, errors: &mut Errors) {
    let parent = spec.field("parentRef");
    if parent.value.is_null() {
        return parent.required("", errors);
    }
    parent.field("group").optional(names::is_dns1123_subdomain, errors);
    for field in ["resource", "name"] {
        parent.field(field).required_name(names::is_path_segment, errors);
    }
    parent.field("namespace").optional(names::is_path_segment, errors);
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
