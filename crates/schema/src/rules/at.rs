//! Where a rule stands in an object, and the checks that many rules share.

use std::net::IpAddr;

use meta::{FieldError, FieldPath, names};
use serde_json::Value;

use crate::view::View;

/// What is wrong with an object so far.
pub(crate) use meta::FieldErrors as Errors;

/// A value and its path.
#[derive(Clone)]
pub(crate) struct At<'a> {
    pub(crate) value: &'a Value,
    pub(crate) path: FieldPath,
}

impl View for At<'_> {
    fn at(&self, key: &str) -> &Value {
        self.value.at(key)
    }
}

impl<'a> At<'a> {
    /// The object itself.
    pub(crate) fn root(value: &'a Value) -> Self {
        Self { value, path: FieldPath::root() }
    }

    /// A field; null if it is absent.
    pub(crate) fn field(&self, key: &str) -> Self {
        At { value: self.value.at(key), path: self.path.child(key) }
    }

    /// A field, if it is there.
    pub(crate) fn some(&self, key: &str) -> Option<Self> {
        self.value.has(key).then(|| self.field(key))
    }

    /// The items of the list in a field.
    pub(crate) fn each(&self, key: &str) -> impl Iterator<Item = At<'a>> + use<'a> {
        let path = self.path.child(key);
        let items =
            self.value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().enumerate().map(move |(index, value)| At { value, path: path.index(index) })
    }

    /// The text here, or "".
    pub(crate) fn str(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The text of a field, or "".
    pub(crate) fn str_of(&self, key: &str) -> &'a str {
        self.value.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// The number here, or 0.
    pub(crate) fn number(&self) -> i64 {
        self.value.as_i64().unwrap_or_default()
    }

    pub(crate) fn required(&self, detail: &str, errors: &mut Errors) {
        errors.push(FieldError::required(&self.path, detail));
    }

    pub(crate) fn invalid(&self, detail: impl Into<String>, errors: &mut Errors) {
        // What nobody keeps need not be copied.
        if !errors.is_full() {
            errors.push(FieldError::invalid(&self.path, self.value.clone(), detail));
        }
    }

    /// As [`At::invalid`], where Go shows the zero value of an absent text.
    pub(crate) fn invalid_text(&self, detail: impl Into<String>, errors: &mut Errors) {
        errors.push(FieldError::invalid(&self.path, self.str(), detail));
    }

    pub(crate) fn forbidden(&self, detail: &str, errors: &mut Errors) {
        errors.push(FieldError::forbidden(&self.path, detail));
    }

    pub(crate) fn duplicate(&self, errors: &mut Errors) {
        if !errors.is_full() {
            errors.push(FieldError::duplicate(&self.path, self.value.clone()));
        }
    }

    pub(crate) fn not_found(&self, errors: &mut Errors) {
        errors.push(FieldError::not_found(&self.path, self.str()));
    }

    pub(crate) fn unsupported(&self, supported: &[&str], errors: &mut Errors) {
        errors.push(FieldError::not_supported(
            &self.path,
            self.value.as_str().unwrap_or_default(),
            supported,
        ));
    }

    /// One `Invalid` for each thing a check says of the text here.
    pub(crate) fn check(&self, check: impl FnOnce(&str) -> Vec<String>, errors: &mut Errors) {
        for problem in check(self.str()) {
            self.invalid_text(problem, errors);
        }
    }

    /// The text must be one of these; absent is `Required`.
    pub(crate) fn one_of(&self, supported: &[&str], errors: &mut Errors) {
        match self.str() {
            "" => self.required("", errors),
            text if supported.contains(&text) => {}
            _ => self.unsupported(supported, errors),
        }
    }

    /// The text must be one of these, if it is there at all.
    pub(crate) fn known(&self, supported: &[&str], errors: &mut Errors) {
        if !self.value.is_null() && !supported.contains(&self.str()) {
            self.unsupported(supported, errors);
        }
    }

    /// The text must pass a check, if there is any.
    pub(crate) fn optional(&self, check: impl FnOnce(&str) -> Vec<String>, errors: &mut Errors) {
        if !self.str().is_empty() {
            self.check(check, errors);
        }
    }

    /// The text must not be longer than this many bytes.
    pub(crate) fn no_longer(&self, limit: usize, errors: &mut Errors) {
        if self.str().len() > limit {
            errors.push(FieldError::too_long(&self.path, limit));
        }
    }

    /// The list here must not have more items than this; `true` if it has not.
    pub(crate) fn no_more(&self, limit: usize, errors: &mut Errors) -> bool {
        let count = self.value.as_array().map_or(0, Vec::len);
        if count > limit {
            errors.push(FieldError::too_many(&self.path, count, limit));
        }
        count <= limit
    }

    /// The name of a storage or device driver: a domain, in any case.
    pub(crate) fn driver(&self, errors: &mut Errors) {
        if self.str().is_empty() {
            return self.required("", errors);
        }
        self.no_longer(63, errors);
        self.check(|name| names::is_dns1123_subdomain(&name.to_lowercase()), errors);
    }

    /// The text must not be empty.
    pub(crate) fn needed(&self, errors: &mut Errors) {
        if self.str().is_empty() {
            self.required("", errors);
        }
    }

    /// The number, if there is one, must lie between these, both included.
    pub(crate) fn in_range(&self, low: i64, high: i64, errors: &mut Errors) {
        if !self.value.is_null() && !(low..=high).contains(&self.number()) {
            self.invalid(names::range_error(low, high), errors);
        }
    }

    /// `Invalid`, without showing the value.
    pub(crate) fn wrong(&self, detail: impl Into<String>, errors: &mut Errors) {
        errors.push(FieldError::invalid(&self.path, Value::Null, detail).shown_as(""));
    }

    /// The same value under another path.
    pub(crate) fn under(&self, path: FieldPath) -> Self {
        At { value: self.value, path }
    }

    /// The text must be an IP address, or one of those that were let in before.
    pub(crate) fn ip_or_old<'v>(
        &self,
        mut old: impl Iterator<Item = &'v str>,
        errors: &mut Errors,
    ) -> bool {
        old.any(|old| old == self.str()) || self.ip(errors)
    }

    /// The text must be a CIDR, or one of those that were let in before.
    pub(crate) fn cidr_or_old<'v>(
        &self,
        mut old: impl Iterator<Item = &'v str>,
        errors: &mut Errors,
    ) {
        if !old.any(|old| old == self.str()) {
            self.cidr(errors);
        }
    }

    /// The text must be there and pass a check.
    pub(crate) fn required_name(
        &self,
        check: impl FnOnce(&str) -> Vec<String>,
        errors: &mut Errors,
    ) {
        if self.str().is_empty() { self.required("", errors) } else { self.check(check, errors) }
    }

    /// The number must not be negative.
    pub(crate) fn not_negative(&self, errors: &mut Errors) {
        if self.number() < 0 {
            self.invalid(NOT_NEGATIVE, errors);
        }
    }

    /// The number must be positive.
    pub(crate) fn positive(&self, errors: &mut Errors) {
        if self.number() <= 0 {
            errors.push(FieldError::invalid(
                &self.path,
                self.number(),
                "must be greater than zero",
            ));
        }
    }

    /// The number must be a port.
    pub(crate) fn port(&self, errors: &mut Errors) {
        for problem in names::is_port_number(self.number()) {
            errors.push(FieldError::invalid(&self.path, self.number(), problem));
        }
    }

    /// A port number, or the name of one.
    pub(crate) fn port_or_name(&self, errors: &mut Errors) {
        if self.value.is_string() {
            self.check(names::is_port_name, errors)
        } else {
            self.port(errors)
        }
    }

    /// The text must be an IP address; `true` if it is.
    pub(crate) fn ip(&self, errors: &mut Errors) -> bool {
        let text = self.str();
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
                self.invalid_text("must not be an IPv4-mapped IPv6 address", errors);
                false
            }
            Ok(_) => true,
            Err(_) if without_zeros(text).parse::<IpAddr>().is_ok() => {
                self.invalid_text("must not have leading 0s", errors);
                false
            }
            Err(_) => {
                self.invalid_text(
                    "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                    errors,
                );
                false
            }
        }
    }

    /// The text must be an IP address as it is written shortest.
    pub(crate) fn canonical_ip(&self, errors: &mut Errors) -> bool {
        let fine = self.ip(errors);
        match self.str().parse::<IpAddr>().map(|ip| ip.to_string()) {
            Ok(shortest) if fine && shortest != self.str() => {
                self.invalid_text(format!("must be in canonical form ({shortest:?})"), errors);
                false
            }
            _ => fine,
        }
    }

    /// The text must be a CIDR.
    pub(crate) fn cidr(&self, errors: &mut Errors) {
        let Some((ip, bits)) = lenient_cidr(self.str()) else {
            let text = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            return self.invalid_text(text, errors);
        };
        let (address, length) = self.str().split_once('/').unwrap_or_default();
        if address.parse::<IpAddr>().is_err() || (length.len() > 1 && length.starts_with('0')) {
            self.invalid_text("must not have leading 0s in IP or prefix length", errors);
        } else if matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()) {
            self.invalid_text("must not have an IPv4-mapped IPv6 address", errors);
        } else if masked(ip, bits) != ip {
            self.invalid_text("must not have bits set beyond the prefix length", errors);
        }
    }

    /// The text must be a CIDR as it is written shortest.
    pub(crate) fn canonical_cidr(&self, errors: &mut Errors) {
        let before = errors.len();
        self.cidr(errors);
        if let (true, Some((ip, bits))) = (errors.len() == before, lenient_cidr(self.str())) {
            let shortest = format!("{ip}/{bits}");
            if shortest != self.str() {
                self.invalid_text(format!("must be in canonical form ({shortest:?})"), errors);
            }
        }
    }

    /// The address must be one that an endpoint may have.
    pub(crate) fn endpoint_ip(&self, errors: &mut Errors) {
        let Some(ip) = lenient_ip(self.str()) else {
            self.invalid_text("must be a valid IP address", errors);
            return;
        };
        let (local, multicast) = match ip {
            IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
            IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] & 0xff0f == 0xff02),
        };
        if ip.is_unspecified() {
            self.invalid_text(format!("may not be unspecified ({})", self.str()), errors);
        }
        if ip.is_loopback() {
            self.invalid_text("may not be in the loopback range (127.0.0.0/8, ::1/128)", errors);
        }
        if local {
            self.invalid_text(
                "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
                errors,
            );
        }
        if multicast {
            self.invalid_text(
                "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
                errors,
            );
        }
    }
}

/// What upstream says of a negative number.
pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// An address, as Go's oldest parser reads it: zeros may lead.
pub(crate) fn lenient_ip(text: &str) -> Option<IpAddr> {
    without_zeros(text).parse().ok()
}

fn without_zeros(text: &str) -> String {
    if text.contains(':') {
        return text.to_owned();
    }
    let parts: Vec<&str> = text
        .split('.')
        .map(|part| match part.trim_start_matches('0') {
            "" if !part.is_empty() => "0",
            rest => rest,
        })
        .collect();
    parts.join(".")
}

/// A range of addresses, as Go's oldest parser reads it: zeros may lead.
pub(crate) fn lenient_cidr(text: &str) -> Option<(IpAddr, u32)> {
    let (ip, bits) = text.split_once('/')?;
    if !bits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (ip, bits) = (without_zeros(ip).parse::<IpAddr>().ok()?, bits.parse::<u32>().ok()?);
    (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
}

/// The first address of a range.
pub(crate) fn masked(ip: IpAddr, bits: u32) -> IpAddr {
    let (four, six) = (32_u32.saturating_sub(bits), 128_u32.saturating_sub(bits));
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(four).unwrap_or_default();
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(six).unwrap_or_default();
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    }
}

/// Whether a text is an IPv6 address.
pub(crate) fn is_ipv6(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6())
}

/// Sets of texts are shown sorted, as upstream does.
pub(crate) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// Everything an absolute path may be refused for when a relative one is wanted.
pub(crate) fn relative_path(at: &At<'_>, errors: &mut Errors) {
    if at.str().starts_with('/') {
        at.invalid_text("must be a relative path", errors);
    }
    no_backsteps(at, errors);
}

/// A path without `..`.
pub(crate) fn no_backsteps(at: &At<'_>, errors: &mut Errors) {
    if at.str().split('/').any(|part| part == "..") {
        at.invalid_text("must not contain '..'", errors);
    }
}

/// A relative path that does not begin with what atomic writers reserve.
pub(crate) fn unreserved_path(at: &At<'_>, errors: &mut Errors) {
    relative_path(at, errors);
    if at.str().starts_with("..") && !at.str().starts_with("../") {
        at.invalid_text("must not start with '..'", errors);
    }
}

/// A file mode.
pub(crate) fn file_mode(at: &At<'_>, errors: &mut Errors) {
    if !(0..=0o777).contains(&at.number()) {
        at.invalid("must be a number between 0 and 0777 (octal), both inclusive", errors);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(check: impl Fn(&At<'_>, &mut Errors), value: Value) -> Vec<String> {
        let mut errors = Errors::new();
        check(&At { value: &value, path: FieldPath::new("f") }, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses() {
        let ip = |at: &At<'_>, errors: &mut Errors| {
            at.ip(errors);
        };
        assert_eq!(said(ip, json!("10.0.0.1")), Vec::<String>::new());
        assert_eq!(
            said(ip, json!("010.0.0.1")),
            ["f: Invalid value: \"010.0.0.1\": must not have leading 0s"]
        );
        assert_eq!(
            said(ip, json!("x")),
            [
                "f: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            ]
        );
        let cidr = |at: &At<'_>, errors: &mut Errors| at.cidr(errors);
        assert_eq!(said(cidr, json!("10.0.0.0/24")), Vec::<String>::new());
        assert_eq!(
            said(cidr, json!("10.0.0.1/24")),
            ["f: Invalid value: \"10.0.0.1/24\": must not have bits set beyond the prefix length"]
        );
        assert_eq!(said(cidr, json!("0.0.0.0/0")), Vec::<String>::new());
        for (text, problem) in [
            ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
            ("010.0.0.0/8", "must not have leading 0s in IP or prefix length"),
            ("::ffff:10.0.0.0/104", "must not have an IPv4-mapped IPv6 address"),
            ("10.0.0.0/+8", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            ("10.0.0.0/33", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
        ] {
            assert_eq!(said(cidr, json!(text)), [format!("f: Invalid value: {text:?}: {problem}")]);
        }
        let canonical = |at: &At<'_>, errors: &mut Errors| at.canonical_cidr(errors);
        assert_eq!(
            said(canonical, json!("2001:db8:0::/64")),
            [
                "f: Invalid value: \"2001:db8:0::/64\": must be in canonical form (\"2001:db8::/64\")"
            ]
        );
        let endpoint = |at: &At<'_>, errors: &mut Errors| at.endpoint_ip(errors);
        assert_eq!(said(endpoint, json!("127.0.0.1")).len(), 1);
    }

    #[test]
    fn paths() {
        assert_eq!(said(unreserved_path, json!("a/b")), Vec::<String>::new());
        assert_eq!(
            said(unreserved_path, json!("/a")),
            ["f: Invalid value: \"/a\": must be a relative path"]
        );
        assert_eq!(
            said(unreserved_path, json!("a/../b")),
            ["f: Invalid value: \"a/../b\": must not contain '..'"]
        );
        assert_eq!(
            said(unreserved_path, json!("..data")),
            ["f: Invalid value: \"..data\": must not start with '..'"]
        );
    }
}
