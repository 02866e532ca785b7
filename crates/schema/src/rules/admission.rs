//! Rules of webhook configurations, and of the resource rules that policies share with them.

use std::collections::BTreeSet;

use meta::{FieldError, names};
use serde_json::Value;

use super::Hooks;
use super::at::{At, Errors};
use super::selector::{Lenient, is_invalid, label_selector_with};
use crate::view::{View, same};

/// `admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration` and its mutating sister.
pub(super) const WEBHOOKS: Hooks = Hooks {
    validate: |object, errors| configuration(object, Kept::default(), errors),
    validate_update: |new, old, errors| configuration(new, Kept::of(new, old), errors),
    ..Hooks::BASE
};

pub(super) const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
const REINVOCATION_POLICIES: &[&str] = &["IfNeeded", "Never"];
const HARMLESS: &[&str] = &["None", "NoneOnDryRun"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun", "Some", "Unknown"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
/// The versions of reviews that this server speaks.
const REVIEWS: &[&str] = &["v1", "v1beta1"];
const MOST_CONDITIONS: usize = 64;

/// What webhooks had before it was refused, and may keep.
#[derive(Clone, Copy, Default)]
struct Kept {
    side_effects: bool,
    unknown_reviews: bool,
    repeated_names: bool,
    conditions: bool,
    selectors: Lenient,
}

impl Kept {
    fn of(new: &Value, old: &Value) -> Self {
        let hooks = old.items("webhooks");
        let mut known = BTreeSet::new();
        let conditions = |hooks: &[Value]| -> Vec<Value> {
            hooks.iter().map(|hook| hook.at("matchConditions").clone()).collect()
        };
        let unknown = |hook: &Value| {
            let reviews = hook.items("admissionReviewVersions");
            let speaks = |version: &Value| REVIEWS.contains(&version.as_str().unwrap_or_default());
            !reviews.is_empty() && !reviews.iter().any(speaks)
        };
        let selects_oddly = |hook: &Value| SELECTORS.iter().any(|field| is_invalid(hook.at(field)));
        let (now, then) = (conditions(new.items("webhooks")), conditions(hooks));
        Self {
            side_effects: hooks.iter().any(|hook| !HARMLESS.contains(&hook.text("sideEffects"))),
            unknown_reviews: hooks.iter().any(unknown),
            repeated_names: !hooks.iter().all(|hook| known.insert(hook.text("name"))),
            conditions: same(&now.into(), &then.into()),
            selectors: Lenient { values: hooks.iter().any(selects_oddly), ..Lenient::default() },
        }
    }
}

const SELECTORS: [&str; 2] = ["namespaceSelector", "objectSelector"];

fn configuration(configuration: &Value, kept: Kept, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    for hook in At::root(configuration).each("webhooks") {
        webhook(&hook, kept, errors);
        reviews(&hook, kept, errors);
        let name = hook.field("name");
        if !kept.repeated_names && !name.str().is_empty() && !known.insert(name.str()) {
            name.duplicate(errors);
        }
    }
}

fn webhook(hook: &At<'_>, kept: Kept, errors: &mut Errors) {
    qualified(&hook.field("name"), errors);
    for rule in hook.each("rules") {
        rule_with_operations(&rule, errors);
    }
    hook.field("failurePolicy").known(FAILURE_POLICIES, errors);
    hook.field("matchPolicy").known(MATCH_POLICIES, errors);
    let (effects, allowed) =
        (hook.field("sideEffects"), if kept.side_effects { SIDE_EFFECTS } else { HARMLESS });
    if effects.value.is_null() {
        effects.required(&format!("must specify one of {}", allowed.join(", ")), errors);
    }
    effects.known(allowed, errors);
    let timeout = hook.field("timeoutSeconds");
    if !timeout.value.is_null() && !(1..=30).contains(&timeout.number()) {
        timeout.invalid("the timeout value must be between 1 and 30 seconds", errors);
    }
    for field in SELECTORS {
        label_selector_with(&hook.field(field), kept.selectors, errors);
    }
    hook.field("reinvocationPolicy").known(REINVOCATION_POLICIES, errors);
    client(&hook.field("clientConfig"), errors);
    if !kept.conditions {
        match_conditions(hook, errors);
    }
}

/// A domain of three parts.
fn qualified(at: &At<'_>, errors: &mut Errors) {
    let problems = names::is_dns1123_subdomain(at.str());
    if at.str().is_empty() {
        at.required("", errors);
    } else if !problems.is_empty() {
        at.invalid_text(problems.join(","), errors);
    } else if at.str().split('.').count() < 3 {
        let text = "should be a domain with at least three segments separated by dots";
        at.invalid_text(text, errors);
    }
}

fn reviews(hook: &At<'_>, kept: Kept, errors: &mut Errors) {
    let list = hook.field("admissionReviewVersions");
    if hook.items("admissionReviewVersions").is_empty() {
        return list.required(&format!("must specify one of {}", REVIEWS.join(", ")), errors);
    }
    let mut known = BTreeSet::new();
    for version in hook.each("admissionReviewVersions") {
        if known.insert(version.str()) {
            version.check(names::is_dns1035_label, errors);
        } else {
            version.invalid("duplicate version", errors);
        }
    }
    if !kept.unknown_reviews && !REVIEWS.iter().any(|version| known.contains(version)) {
        list.invalid(format!("must include at least one of {}", REVIEWS.join(", ")), errors);
    }
}

fn client(at: &At<'_>, errors: &mut Errors) {
    match (at.some("url"), at.some("service")) {
        (Some(url), None) => https(&url, errors),
        (None, Some(service)) => self::service(&service, errors),
        _ => at.required("exactly one of url or service is required", errors),
    }
}

fn https(at: &At<'_>, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (rest, fragment) = at.str().split_once('#').unwrap_or((at.str(), ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if let Some(problem) = unreadable(rest) {
        let text = format!("url must be a valid URL: parse {:?}: {problem}{FORM}", at.str());
        return at.required(&text, errors);
    }
    let (scheme, rest) = rest.split_once(':').unwrap_or(("", rest));
    let authority = rest.strip_prefix("//").unwrap_or_default();
    let authority = authority.split('/').next().unwrap_or_default();
    let (user, host) =
        authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let mut complain =
        |value: &str, text: String| errors.push(FieldError::invalid(&at.path, value, text));
    if !scheme.eq_ignore_ascii_case("https") {
        let text = format!("'https' is the only allowed URL scheme{FORM}");
        complain(&scheme.to_lowercase(), text);
    }
    if host.is_empty() {
        complain(host, format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        complain(user, "user information is not permitted in the URL".to_owned());
    }
    if !fragment.is_empty() {
        complain(fragment, "fragments are not permitted in the URL".to_owned());
    }
    if !query.is_empty() {
        complain(query, "query parameters are not permitted in the URL".to_owned());
    }
}

/// Why Go's parser would not read a URL without query and fragment.
fn unreadable(url: &str) -> Option<&'static str> {
    if url.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Some("net/url: invalid control character in URL");
    }
    let (scheme, _) = url.split_once(':')?;
    let letter = |byte: &u8| byte.is_ascii_alphabetic();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    if scheme.is_empty() {
        return Some("missing protocol scheme");
    }
    if scheme.as_bytes().first().is_some_and(letter) && scheme.as_bytes().iter().all(inner) {
        return None;
    }
    (!scheme.contains('/')).then_some("first path segment in URL cannot contain colon")
}

/// The Service behind a webhook. Upstream takes its name for its namespace, and the reverse.
fn service(at: &At<'_>, errors: &mut Errors) {
    for (there, shown) in [("namespace", "name"), ("name", "namespace")] {
        if at.str_of(there).is_empty() {
            at.field(shown).required("", errors);
        }
    }
    service_port(&at.field("port"), errors);
    if let Some(path) = at.some("path") {
        service_path(&path, errors);
    }
}

/// The port of a Service that serves webhooks or APIs.
pub(super) fn service_port(port: &At<'_>, errors: &mut Errors) {
    let problems = names::is_port_number(port.number());
    if !problems.is_empty() {
        let text = format!("port is not valid: {}", problems.join(", "));
        errors.push(FieldError::invalid(&port.path, port.number(), text));
    }
}

fn service_path(at: &At<'_>, errors: &mut Errors) {
    let path = at.str();
    match path {
        "" | "/" => return,
        "//" => return at.invalid_text("segment[0] may not be empty", errors),
        _ => {}
    }
    if !path.starts_with('/') {
        at.invalid_text("must start with a '/'", errors);
    }
    let mut rest = path.chars();
    rest.next();
    let rest = rest.as_str();
    for (index, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if segment.is_empty() {
            at.invalid_text(format!("segment[{index}] may not be empty"), errors);
            continue;
        }
        for problem in names::is_dns1123_subdomain(segment) {
            at.invalid_text(format!("segment[{index}]: {problem}"), errors);
        }
    }
}

/// Which operations on which resources.
pub(super) fn rule_with_operations(rule: &At<'_>, errors: &mut Errors) {
    let operations = rule.field("operations");
    if rule.items("operations").is_empty() {
        operations.required("", errors);
    }
    alone(rule, "operations", "operations", errors);
    for operation in rule.each("operations") {
        operation.known(OPERATIONS, errors);
    }
    resources_of(rule, errors);
    rule.field("scope").known(SCOPES, errors);
}

/// `*` includes everything else; `true` if it is there.
pub(super) fn alone(rule: &At<'_>, field: &str, what: &str, errors: &mut Errors) -> bool {
    let items = rule.items(field);
    let there = items.iter().any(|item| item == "*");
    if there && items.len() > 1 {
        let text = format!("if '*' is present, must not specify other {what}");
        rule.field(field).invalid(text, errors);
    }
    there
}

fn resources_of(rule: &At<'_>, errors: &mut Errors) {
    for (field, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        if rule.items(field).is_empty() {
            rule.field(field).required("", errors);
        }
        alone(rule, field, what, errors);
    }
    for version in rule.each("apiVersions").filter(|version| version.str().is_empty()) {
        version.required("", errors);
    }
    let list = rule.field("resources");
    if rule.items("resources").is_empty() {
        list.required("", errors);
    }
    let (mut whole, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    let mut last_is_bare = false;
    for at in rule.each("resources") {
        let Some((resource, part)) = at.str().split_once('/') else {
            if at.str().is_empty() {
                at.required("", errors);
            } else {
                last_is_bare = at.str() != "*";
            }
            continue;
        };
        let mut complain = |wide: String| {
            at.invalid(format!("if '{wide}' is present, must not specify {}", at.str()), errors);
        };
        if whole.contains(resource) {
            complain(format!("{resource}/*"));
        }
        if everywhere.contains(part) {
            complain(format!("*/{part}"));
        }
        if part == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            everywhere.insert(part);
        }
    }
    let has = |text: &str| rule.items("resources").iter().any(|resource| resource == text);
    if rule.items("resources").len() > 1 && has("*/*") {
        list.invalid("if '*/*' is present, must not specify other resources", errors);
    }
    // Only the last resource without a part counts, as upstream has it.
    if has("*") && last_is_bare {
        let text = "if '*' is present, must not specify other resources without subresources";
        list.invalid(text, errors);
    }
}

/// Expressions that must hold; what they say is compiled elsewhere.
pub(super) fn match_conditions(owner: &At<'_>, errors: &mut Errors) {
    owner.field("matchConditions").no_more(MOST_CONDITIONS, errors);
    let mut known = BTreeSet::new();
    for condition in owner.each("matchConditions") {
        let (name, expression) = (condition.field("name"), condition.field("expression"));
        if expression.str().trim().is_empty() {
            expression.required("", errors);
        }
        name.required_name(names::is_qualified_name, errors);
        if !name.str().is_empty() && !known.insert(name.str()) {
            name.duplicate(errors);
        }
    }
}

/// Which requests a policy is about; absent, it is about all.
pub(super) fn match_resources(at: &At<'_>, errors: &mut Errors) {
    if at.value.is_null() {
        return;
    }
    at.field("matchPolicy").known(MATCH_POLICIES, errors);
    for field in SELECTORS {
        label_selector_with(&at.field(field), Lenient::default(), errors);
    }
    for rule in at.each("resourceRules").chain(at.each("excludeResourceRules")) {
        let mut known = BTreeSet::new();
        for name in rule.each("resourceNames") {
            name.check(names::is_path_segment, errors);
            if !known.insert(name.str()) {
                name.duplicate(errors);
            }
        }
        rule_with_operations(&rule, errors);
    }
}

/// How often a mutation may be made again.
pub(super) fn reinvocation_policy(at: &At<'_>, errors: &mut Errors) {
    at.one_of(REINVOCATION_POLICIES, errors);
}
