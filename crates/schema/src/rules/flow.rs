//! Rules of flow control: FlowSchemas and PriorityLevelConfigurations.

use std::collections::BTreeSet;

use meta::{FieldError, names};
use serde_json::{Value, json};

use super::Hooks;
use super::admission::alone;
use super::at::{At, Errors};
use crate::view::{View, same};

/// `flowcontrol.apiserver.k8s.io/v1 FlowSchema`.
pub(super) const FLOW_SCHEMA: Hooks = Hooks {
    validate: flow_schema,
    validate_update: |new, _, errors| flow_schema(new, errors),
    validate_status: |new, _, errors| status(new, errors),
    ..Hooks::BASE
};

/// `flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration`.
pub(super) const PRIORITY_LEVEL: Hooks = Hooks {
    validate: priority_level,
    validate_update: |new, _, errors| priority_level(new, errors),
    validate_status: |new, _, errors| status(new, errors),
    ..Hooks::BASE
};

/// The objects that exist always and say always the same.
const EXEMPT: &str = "exempt";
const CATCH_ALL: &str = "catch-all";

const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const SUBJECTS: [(&str, &str); 3] =
    [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
const LAST_PRECEDENCE: i64 = 10_000;
const MOST_QUEUES: i64 = 10_000_000;
/// How many bits of a hash may be spent on choosing queues.
const MOST_BITS: f64 = 60.0;
const NOT_A_NUMBER: &str = "must be a non-negative integer";

fn fixed_schema(name: &str) -> Option<Value> {
    let (groups, precedence) = match name {
        EXEMPT => (&["system:masters"][..], 1),
        CATCH_ALL => (&["system:unauthenticated", "system:authenticated"][..], LAST_PRECEDENCE),
        _ => return None,
    };
    let subjects: Vec<Value> =
        groups.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect();
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": name}, "matchingPrecedence": precedence,
        "rules": [{
            "subjects": subjects,
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"],
                "clusterScope": true,
            }],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }],
    });
    if name == CATCH_ALL {
        spec["distinguisherMethod"] = json!({"type": "ByUser"});
    }
    Some(spec)
}

fn flow_schema(schema: &Value, errors: &mut Errors) {
    let (spec, name) = (At::root(schema).field("spec"), schema.at("metadata").text("name"));
    let precedence = spec.field("matchingPrecedence");
    let mut complain = |text: String| {
        errors.push(FieldError::invalid(&precedence.path, precedence.number(), text));
    };
    match precedence.number() {
        ..=0 => complain("must be a positive value".to_owned()),
        1 if name != EXEMPT => {
            complain("only the schema named 'exempt' may have matchingPrecedence 1".to_owned());
        }
        number if number > LAST_PRECEDENCE => {
            complain(format!("must not be greater than {LAST_PRECEDENCE}"));
        }
        _ => {}
    }
    if let Some(method) = spec.some("distinguisherMethod") {
        let kind = method.field("type");
        if !matches!(kind.str(), "ByNamespace" | "ByUser") {
            let shown = json!({"Type": kind.str()});
            let known = ["ByNamespace", "ByUser"];
            errors.push(FieldError::not_supported(&kind.path, shown, &known));
        }
    }
    let level = spec.field("priorityLevelConfiguration").field("name");
    if level.str().is_empty() {
        level.required("must reference a priority level", errors);
    } else {
        level.check(names::is_dns1123_subdomain, errors);
    }
    for rule in spec.each("rules") {
        self::rule(&rule, errors);
    }
    if fixed_schema(name).is_some_and(|fixed| !same(&fixed, spec.value)) {
        spec.invalid(format!("spec of '{name}' must equal the fixed value"), errors);
    }
    status(schema, errors);
}

fn rule(rule: &At<'_>, errors: &mut Errors) {
    if rule.items("subjects").is_empty() {
        rule.field("subjects").required("subjects must contain at least one value", errors);
    }
    for subject in rule.each("subjects") {
        self::subject(&subject, errors);
    }
    if rule.items("resourceRules").is_empty() && rule.items("nonResourceRules").is_empty() {
        let text = "at least one of resourceRules and nonResourceRules has to be non-empty";
        rule.required(text, errors);
    }
    for resources in rule.each("resourceRules") {
        resource_rule(&resources, errors);
    }
    for paths in rule.each("nonResourceRules") {
        verbs(&paths, errors);
        let many = !alone(&paths, "nonResourceURLs", "non-resource URLs", errors);
        if paths.items("nonResourceURLs").is_empty() {
            let text = "nonResourceURLs must contain at least one value";
            paths.field("nonResourceURLs").required(text, errors);
        }
        for path in paths.each("nonResourceURLs").filter(|_| many) {
            if let Some(problem) = wrong_path(path.str()) {
                path.invalid_text(problem, errors);
            }
        }
    }
}

fn subject(subject: &At<'_>, errors: &mut Errors) {
    let kind = subject.field("kind");
    let Some((kind, own)) = SUBJECTS.into_iter().find(|(known, _)| *known == kind.str()) else {
        return kind.unsupported(&["Group", "ServiceAccount", "User"], errors);
    };
    match subject.some(own) {
        None => {
            let text = format!("{own} is required when subject kind is '{kind}'");
            subject.field(own).required(&text, errors);
        }
        Some(named) => {
            let name = named.field("name");
            match name.str() {
                "" => name.required("", errors),
                "*" => {}
                _ if kind == "ServiceAccount" => name.check(names::is_dns1123_subdomain, errors),
                _ => {}
            }
            if kind == "ServiceAccount" {
                let namespace = named.field("namespace");
                if namespace.str().is_empty() {
                    namespace.required("must specify namespace for service account", errors);
                }
                namespace.optional(names::is_dns1123_label, errors);
            }
        }
    }
    for (other, field) in SUBJECTS.into_iter().filter(|(other, _)| *other != kind) {
        if subject.has(field) {
            let text = format!("{field} is forbidden when subject kind is not '{other}'");
            subject.field(field).forbidden(&text, errors);
        }
    }
}

fn verbs(rule: &At<'_>, errors: &mut Errors) {
    let list = rule.field("verbs");
    if rule.items("verbs").is_empty() {
        return list.required("verbs must contain at least one value", errors);
    }
    if !alone(rule, "verbs", "verbs", errors)
        && !rule.each("verbs").all(|verb| VERBS.contains(&verb.str()))
    {
        errors.push(FieldError::not_supported(&list.path, list.value.clone(), VERBS));
    }
}

fn resource_rule(rule: &At<'_>, errors: &mut Errors) {
    verbs(rule, errors);
    for (field, one, others) in
        [("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")]
    {
        if rule.items(field).is_empty() {
            let text = format!("resource rules must supply at least one {one}");
            rule.field(field).required(&text, errors);
        }
        alone(rule, field, others, errors);
    }
    if rule.items("namespaces").is_empty() && !rule.flag("clusterScope") {
        let text = "resource rules that are not cluster scoped must supply at least one namespace";
        rule.field("namespaces").required(text, errors);
    } else if !alone(rule, "namespaces", "namespaces", errors) {
        let text = "each member of this list must be '*' or a DNS-1123 label; ";
        for namespace in rule.each("namespaces") {
            for problem in names::is_dns1123_label(namespace.str()) {
                namespace.invalid_text(format!("{text}{problem}"), errors);
            }
        }
    }
}

fn wrong_path(path: &str) -> Option<&'static str> {
    let wildcards = path.matches('*').count();
    Some(match path {
        "" => "must not be empty",
        "/" => return None,
        _ if !path.starts_with('/') => "must start with slash",
        _ if path.contains(' ') => "must not contain white-space",
        _ if path.contains("//") => "must not contain double slash",
        _ if wildcards > 1 || (wildcards == 1 && !path.ends_with("/*")) => {
            "wildcard can only do suffix matching"
        }
        _ => return None,
    })
}

/// Conditions have a type each, and each another.
fn status(object: &Value, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    for condition in At::root(object).field("status").each("conditions") {
        let kind = condition.field("type");
        if !known.insert(kind.str()) {
            errors.push(FieldError::duplicate(&kind.path, kind.str()));
        }
        if kind.str().is_empty() {
            kind.required("", errors);
        }
    }
}

fn priority_level(level: &Value, errors: &mut Errors) {
    const ANNOTATION: &str = "flowcontrol.k8s.io/preserve-zero-concurrency-shares";
    let (meta, spec) = (At::root(level).field("metadata"), At::root(level).field("spec"));
    let name = meta.str_of("name");
    if meta.at("annotations").get(ANNOTATION).is_some() {
        let text = format!("annotation '{ANNOTATION}' is forbidden");
        meta.field("annotations").forbidden(&text, errors);
    }
    level_spec(&spec, name, errors);
    fixed_level(&spec, name, errors);
    status(level, errors);
}

fn level_spec(spec: &At<'_>, name: &str, errors: &mut Errors) {
    let kind = spec.field("type");
    if (name == EXEMPT) != (kind.str() == "Exempt") {
        kind.invalid_text("must be 'Exempt' if and only if `name` is 'exempt'", errors);
    }
    let (limited, exempt) = (spec.some("limited"), spec.some("exempt"));
    match kind.str() {
        "Exempt" => {
            if let Some(limited) = limited {
                limited.forbidden("must be nil if the type is not Limited", errors);
            }
            if let Some(exempt) = exempt {
                shares(&exempt, errors);
                lendable(&exempt, errors);
            }
        }
        "Limited" => {
            if let Some(exempt) = exempt {
                exempt.forbidden("must be nil if the type is Limited", errors);
            }
            match limited {
                None => {
                    spec.field("limited").required("must not be empty when type is Limited", errors)
                }
                Some(limited) => self::limited(&limited, errors),
            }
        }
        _ => kind.unsupported(&["Exempt", "Limited"], errors),
    }
}

fn shares(at: &At<'_>, errors: &mut Errors) {
    let shares = at.field("nominalConcurrencyShares");
    if shares.number() < 0 {
        shares.invalid(NOT_A_NUMBER, errors);
    }
}

fn lendable(at: &At<'_>, errors: &mut Errors) {
    let percent = at.field("lendablePercent");
    if !(0..=100).contains(&percent.number()) {
        percent.invalid("must be between 0 and 100, inclusive", errors);
    }
}

fn limited(at: &At<'_>, errors: &mut Errors) {
    shares(at, errors);
    let response = at.field("limitResponse");
    let (kind, queuing) = (response.field("type"), response.some("queuing"));
    match (kind.str(), queuing) {
        ("Reject", Some(queuing)) => {
            let text = "must be nil if limited.limitResponse.type is not Limited";
            queuing.forbidden(text, errors);
        }
        ("Reject", None) => {}
        ("Queue", None) => response
            .field("queuing")
            .required("must not be empty if limited.limitResponse.type is Limited", errors),
        ("Queue", Some(queuing)) => queues(&queuing, errors),
        _ => kind.unsupported(&["Queue", "Reject"], errors),
    }
    lendable(at, errors);
    let borrowing = at.field("borrowingLimitPercent");
    if borrowing.number() < 0 {
        borrowing.invalid(format!("if specified, {NOT_A_NUMBER}"), errors);
    }
}

fn queues(at: &At<'_>, errors: &mut Errors) {
    let (length, queues, hand) =
        (at.field("queueLengthLimit"), at.field("queues"), at.field("handSize"));
    let mut complain =
        |at: &At<'_>, text: String| errors.push(FieldError::invalid(&at.path, at.number(), text));
    if length.number() <= 0 {
        complain(&length, "must be positive".to_owned());
    }
    if queues.number() <= 0 {
        complain(&queues, "must be positive".to_owned());
    } else if queues.number() > MOST_QUEUES {
        complain(&queues, format!("must not be greater than {MOST_QUEUES}"));
    }
    let (deck, size) = (queues.number(), hand.number());
    if size <= 0 {
        complain(&hand, "must be positive".to_owned());
    } else if size > deck {
        complain(&hand, format!("should not be greater than queues ({deck})"));
    } else if bits(deck, size) > MOST_BITS {
        complain(
            &hand,
            format!(
                "required entropy bits of deckSize {deck} and handSize {size} should not be greater than {MOST_BITS}"
            ),
        );
    }
}

/// How many bits it takes to choose a hand from a deck.
fn bits(deck: i64, hand: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "both are 32-bit numbers")]
    let (deck, hand) = (deck as f64, hand as f64);
    (deck.log2() * hand).ceil()
}

fn fixed_level(spec: &At<'_>, name: &str, errors: &mut Errors) {
    if name == EXEMPT {
        let mut have = spec.value.clone();
        if let Value::Object(have) = &mut have {
            have.remove("exempt");
        }
        if !same(&have, &json!({"type": "Exempt"})) {
            let text = "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value";
            spec.invalid(text, errors);
        }
    }
    let fixed = json!({"type": "Limited", "limited": {
        "nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"},
    }});
    if name == CATCH_ALL && !same(&fixed, spec.value) {
        spec.invalid("spec of 'catch-all' must equal the fixed value", errors);
    }
}
