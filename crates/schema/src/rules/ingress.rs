//! Rules of Ingresses and IngressClasses.

use std::net::IpAddr;

use meta::{FieldError, names};
use serde_json::Value;

use super::Hooks;
use super::at::{At, Errors};
use super::metadata::immutable;
use crate::view::View;

const LONGEST_CONTROLLER: usize = 250;

/// `networking.k8s.io/v1 Ingress`.
pub(super) const INGRESS: Hooks = Hooks {
    validate: |object, errors| {
        ingress(object, Kept::default(), errors);
        class_annotation(object, errors);
    },
    validate_update: |new, old, errors| ingress(new, Kept::of(old), errors),
    validate_status: status,
    ..Hooks::BASE
};

/// `networking.k8s.io/v1 IngressClass`.
pub(super) const INGRESS_CLASS: Hooks = Hooks {
    validate: class,
    validate_update: |new, old, errors| {
        let controller = |class: &Value| class.at("spec").at("controller").clone();
        immutable(&controller(new), &controller(old), "spec.controller", errors);
        class(new, errors);
    },
    ..Hooks::BASE
};

/// What an Ingress had before it was refused, and may keep.
#[derive(Clone, Copy, Default)]
struct Kept {
    secret_names: bool,
    wildcard_rules: bool,
}

impl Kept {
    fn of(old: &Value) -> Self {
        let spec = At::root(old).field("spec");
        let wrong = |check: &dyn Fn(&mut Errors)| {
            let mut errors = Errors::new();
            check(&mut errors);
            !errors.is_empty()
        };
        let secret = |tls: At<'_>| wrong(&|errors| secret_name(&tls, errors));
        let rule = |rule: At<'_>| {
            rule.str_of("host").contains('*') && wrong(&|errors| rule_value(&rule, errors))
        };
        Self {
            secret_names: spec.each("tls").any(secret),
            wildcard_rules: spec.each("rules").any(rule),
        }
    }
}

fn ingress(ingress: &Value, kept: Kept, errors: &mut Errors) {
    let spec = At::root(ingress).field("spec");
    if spec.items("rules").is_empty() && !spec.has("defaultBackend") {
        let text = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(&spec.path, spec.at("rules").clone(), text));
    }
    if let Some(found) = spec.some("defaultBackend") {
        backend(&found, errors);
    }
    for rule in spec.each("rules") {
        let host = rule.field("host");
        if !host.str().is_empty() {
            no_address(&host, errors);
            domain(&host, errors);
        }
        if !kept.wildcard_rules || !host.str().contains('*') {
            rule_value(&rule, errors);
        }
    }
    for tls in spec.each("tls") {
        for host in tls.each("hosts") {
            domain(&host, errors);
        }
        if !kept.secret_names {
            secret_name(&tls, errors);
        }
    }
    if let Some(class) = spec.some("ingressClassName") {
        class.check(names::is_dns1123_subdomain, errors);
    }
}

fn class_annotation(ingress: &Value, errors: &mut Errors) {
    const KEY: &str = "kubernetes.io/ingress.class";
    let annotation = ingress.at("metadata").at("annotations").at(KEY);
    let class = ingress.at("spec").at("ingressClassName");
    if !annotation.is_null() && !class.is_null() && annotation != class {
        let text = "must match `ingressClassName` when both are specified";
        let path = meta::FieldPath::new("annotations").child(KEY);
        errors.push(FieldError::invalid(path, annotation.clone(), text));
    }
}

fn secret_name(tls: &At<'_>, errors: &mut Errors) {
    tls.field("secretName").optional(names::is_dns1123_subdomain, errors);
}

fn no_address(host: &At<'_>, errors: &mut Errors) {
    if host.str().parse::<IpAddr>().is_ok() {
        host.invalid("must be a DNS name, not an IP address", errors);
    }
}

fn domain(host: &At<'_>, errors: &mut Errors) {
    if host.str().contains('*') {
        host.check(names::is_wildcard_dns1123_subdomain, errors);
    } else {
        host.check(names::is_dns1123_subdomain, errors);
    }
}

fn rule_value(rule: &At<'_>, errors: &mut Errors) {
    let Some(http) = rule.some("http") else { return };
    if http.items("paths").is_empty() {
        http.field("paths").required("", errors);
    }
    for path in http.each("paths") {
        http_path(&path, errors);
    }
}

fn http_path(path: &At<'_>, errors: &mut Errors) {
    const SEQUENCES: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];
    const SUFFIXES: &[&str] = &["/..", "/."];
    const TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
    let (kind, at) = (path.field("pathType"), path.field("path"));
    if kind.value.is_null() {
        return kind.required("pathType must be specified", errors);
    }
    let absolute = at.str().starts_with('/');
    match kind.str() {
        "Exact" | "Prefix" => {
            if !absolute {
                at.invalid_text("must be an absolute path", errors);
            }
            for sequence in SEQUENCES.iter().filter(|sequence| at.str().contains(**sequence)) {
                at.invalid(format!("must not contain '{sequence}'"), errors);
            }
            for suffix in SUFFIXES.iter().filter(|suffix| at.str().ends_with(**suffix)) {
                at.invalid(format!("cannot end with '{suffix}'"), errors);
            }
        }
        "ImplementationSpecific" if !at.str().is_empty() && !absolute => {
            at.invalid("must be an absolute path", errors);
        }
        _ => kind.known(TYPES, errors),
    }
    backend(&path.field("backend"), errors);
}

fn backend(at: &At<'_>, errors: &mut Errors) {
    let mut complain = |text: &str| errors.push(FieldError::invalid(&at.path, "", text));
    match (at.some("resource"), at.some("service")) {
        (Some(_), Some(_)) => complain("cannot set both resource and service backends"),
        (None, None) => complain("resource or service backend is required"),
        (Some(resource), None) => reference(&resource, errors),
        (None, Some(service)) => {
            service.field("name").required_name(names::is_dns1123_label, errors);
            let port = service.field("port");
            match (port.str_of("name"), port.int("number").unwrap_or_default()) {
                ("", 0) => at.required("port name or number is required", errors),
                ("", _) => port.field("number").port(errors),
                (_, 0) => port.field("name").check(names::is_port_name, errors),
                _ => errors.push(FieldError::invalid(
                    &at.path,
                    "",
                    "cannot set both port name & port number",
                )),
            }
        }
    }
}

/// A reference to an object of any kind.
fn reference(at: &At<'_>, errors: &mut Errors) {
    if let Some(group) = at.some("apiGroup") {
        group.check(names::is_dns1123_subdomain, errors);
    }
    for field in ["kind", "name"] {
        at.field(field).required_name(names::is_path_segment, errors);
    }
}

fn class(class: &Value, errors: &mut Errors) {
    let spec = At::root(class).field("spec");
    let controller = spec.field("controller");
    controller.no_longer(LONGEST_CONTROLLER, errors);
    domain_prefixed_path(&controller, errors);
    let Some(parameters) = spec.some("parameters") else { return };
    reference(&parameters, errors);
    let (scope, namespace) = (parameters.field("scope"), parameters.field("namespace"));
    match (scope.str(), namespace.value.is_null()) {
        ("Namespace", true) => {
            namespace.required("`parameters.scope` is set to 'Namespace'", errors);
        }
        ("Namespace", false) => namespace.check(names::is_dns1123_label, errors),
        ("Cluster", false) => {
            namespace.forbidden("`parameters.scope` is set to 'Cluster'", errors);
        }
        ("Cluster", true) => {}
        _ => scope.unsupported(&["Cluster", "Namespace"], errors),
    }
}

/// A domain, a slash and a path.
fn domain_prefixed_path(at: &At<'_>, errors: &mut Errors) {
    const FORMAT: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
    let (host, path) = match at.str().split_once('/') {
        _ if at.str().is_empty() => return at.required("", errors),
        Some((host, path)) if !host.is_empty() && !path.is_empty() => (host, path),
        _ => {
            let text = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            return at.invalid_text(text, errors);
        }
    };
    for problem in names::is_dns1123_subdomain(host) {
        errors.push(FieldError::invalid(&at.path, host, problem));
    }
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    if !path.bytes().all(fine) {
        let text = names::regex_error("Invalid path", FORMAT, &[]);
        errors.push(FieldError::invalid(&at.path, path, text));
    }
}

/// The addresses where an Ingress is reached; those that were there before may stay.
fn status(new: &Value, old: &Value, errors: &mut Errors) {
    let points = |ingress| At::root(ingress).field("status").field("loadBalancer").each("ingress");
    let known: std::collections::BTreeSet<&str> = points(old).map(|at| at.str_of("ip")).collect();
    for point in points(new) {
        let (ip, hostname) = (point.field("ip"), point.field("hostname"));
        if !ip.str().is_empty() && !known.contains(ip.str()) {
            ip.ip(errors);
        }
        if !hostname.str().is_empty() {
            hostname.check(names::is_dns1123_subdomain, errors);
            no_address(&hostname, errors);
        }
    }
}
