//! Rules of admission policies and their bindings. What expressions say is compiled elsewhere.

use std::collections::BTreeSet;

use meta::{FieldError, names};
use serde_json::Value;

use super::Hooks;
use super::admission::{FAILURE_POLICIES, match_conditions, match_resources, reinvocation_policy};
use super::at::{At, Errors};
use super::conditions::conditions;
use super::selector::label_selector;
use crate::view::{View, same};

/// `admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy`.
pub(super) const VALIDATING: Hooks = Hooks {
    validate: |policy, errors| validating(policy, false, errors),
    validate_update: |new, old, errors| validating(new, keeps_conditions(new, old), errors),
    validate_status: |new, _, errors| status(&At::root(new).field("status"), errors),
    ..Hooks::BASE
};

/// `admissionregistration.k8s.io/v1 MutatingAdmissionPolicy`.
pub(super) const MUTATING: Hooks = Hooks {
    validate: |policy, errors| mutating(policy, false, errors),
    validate_update: |new, old, errors| mutating(new, keeps_conditions(new, old), errors),
    ..Hooks::BASE
};

/// `admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding`.
pub(super) const VALIDATING_BINDING: Hooks = Hooks {
    validate: validating_binding,
    validate_update: |new, _, errors| validating_binding(new, errors),
    ..Hooks::BASE
};

/// `admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding`.
pub(super) const MUTATING_BINDING: Hooks = Hooks {
    validate: mutating_binding,
    validate_update: |new, _, errors| mutating_binding(new, errors),
    ..Hooks::BASE
};

const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
/// What mutations may be about: nothing is left of what is deleted.
const MUTABLE: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
const MOST_ANNOTATIONS: usize = 20;
const LONGEST_ANNOTATION: usize = 5 * 1024;

/// Conditions that did not change are not looked at again.
fn keeps_conditions(new: &Value, old: &Value) -> bool {
    let (new, old) = (new.at("spec"), old.at("spec"));
    ["paramKind", "matchConditions"].iter().all(|field| same(new.at(field), old.at(field)))
}

/// What both kinds of policies begin with.
fn common(spec: &At<'_>, mutating: bool, keeps: bool, errors: &mut Errors) {
    spec.field("failurePolicy").known(FAILURE_POLICIES, errors);
    if let Some(kind) = spec.some("paramKind") {
        param_kind(&kind, errors);
    }
    let constraints = spec.field("matchConstraints");
    if constraints.value.is_null() {
        constraints.required("", errors);
    } else {
        match_resources(&constraints, errors);
        if constraints.items("resourceRules").is_empty() {
            constraints.field("resourceRules").required("", errors);
        }
        if mutating {
            mutable(&constraints, errors);
        }
    }
    if !keeps {
        match_conditions(spec, errors);
    }
    for variable in spec.each("variables") {
        self::variable(&variable, errors);
    }
}

fn mutable(resources: &At<'_>, errors: &mut Errors) {
    let path = resources.path.child("resourceRules").child("operations");
    for rule in resources.each("resourceRules") {
        for operation in rule.each("operations") {
            let operation = At { value: operation.value, path: path.clone() };
            operation.known(MUTABLE, errors);
        }
    }
}

fn param_kind(at: &At<'_>, errors: &mut Errors) {
    let (version, kind) = (at.field("apiVersion"), at.field("kind"));
    let mut complain = |value: &str, problems: Vec<String>| {
        if !problems.is_empty() {
            errors.push(FieldError::invalid(&version.path, value, problems.join(",")));
        }
    };
    match version.str() {
        "" => version.required("", errors),
        text if text != "/" && text.matches('/').count() > 1 => {
            version.invalid(format!("unexpected GroupVersion string: {text}"), errors);
        }
        text => {
            let (group, name) = text.split_once('/').unwrap_or(("", text));
            if !group.is_empty() {
                complain(group, names::is_dns1123_subdomain(group));
            }
            if name.is_empty() {
                complain(text, vec!["version must be specified".to_owned()]);
            } else {
                complain(name, names::is_dns1035_label(name));
            }
        }
    }
    let problems = names::is_dns1035_label(&kind.str().to_lowercase());
    if kind.str().is_empty() {
        kind.required("", errors);
    } else if !problems.is_empty() {
        let text = "may have mixed case, but should otherwise match: ";
        kind.invalid(format!("{text}{}", problems.join(",")), errors);
    }
}

fn variable(at: &At<'_>, errors: &mut Errors) {
    let (name, expression) = (at.field("name"), at.field("expression"));
    if name.str().trim().is_empty() {
        name.required("name is not specified", errors);
    } else if !is_cel_identifier(name.str()) {
        name.invalid("must be a valid CEL identifier", errors);
    }
    said(&expression, "expression is not specified", errors);
}

fn is_cel_identifier(name: &str) -> bool {
    const RESERVED: &[&str] = &[
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(word)
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && !RESERVED.contains(&name)
}

/// An expression that is more than blanks.
fn said(expression: &At<'_>, problem: &str, errors: &mut Errors) {
    if expression.str().trim().is_empty() {
        expression.required(problem, errors);
    }
}

fn validating(policy: &Value, keeps: bool, errors: &mut Errors) {
    let spec = At::root(policy).field("spec");
    common(&spec, false, keeps, errors);
    if spec.items("validations").is_empty() && spec.items("auditAnnotations").is_empty() {
        let text = "validations or auditAnnotations must contain at least one item";
        spec.field("validations").required(text, errors);
        return spec.field("auditAnnotations").required(text, errors);
    }
    for validation in spec.each("validations") {
        self::validation(&validation, errors);
    }
    let annotations = spec.field("auditAnnotations");
    if spec.items("auditAnnotations").len() > MOST_ANNOTATIONS {
        let text = format!("must not have more than {MOST_ANNOTATIONS} auditAnnotations");
        annotations.invalid(text, errors);
    }
    let (mut known, name) = (BTreeSet::new(), policy.at("metadata").text("name"));
    for annotation in spec.each("auditAnnotations") {
        audit_annotation(&annotation, name, errors);
        let key = annotation.field("key");
        if !known.insert(key.str()) {
            errors.push(FieldError::duplicate(&key.path, key.str()));
        }
    }
}

fn validation(at: &At<'_>, errors: &mut Errors) {
    said(&at.field("expression"), "expression is not specified", errors);
    let blank = |text: &str| !text.is_empty() && text.trim().is_empty();
    let (expression, message) = (at.field("messageExpression"), at.field("message"));
    if blank(expression.str()) {
        expression.invalid("must be non-empty if specified", errors);
    }
    if blank(message.str()) {
        message.invalid("must be non-empty if specified", errors);
    } else if message.str().trim().contains(['\n', '\r']) {
        message.invalid("must not contain line breaks", errors);
    }
    at.field("reason").known(REASONS, errors);
}

fn audit_annotation(at: &At<'_>, policy: &str, errors: &mut Errors) {
    let (key, value) = (at.field("key"), at.field("valueExpression"));
    if policy.is_empty() {
        key.invalid_text("requires metadata.name be non-empty", errors);
    } else {
        let whole = format!("{policy}/{}", key.str());
        for problem in names::is_qualified_name(&whole) {
            errors.push(FieldError::invalid(&key.path, whole.as_str(), problem));
        }
    }
    if value.str().trim().len() > LONGEST_ANNOTATION {
        value.required(&format!("must not exceed {LONGEST_ANNOTATION} bytes in length"), errors);
    }
    said(&value, "valueExpression is not specified", errors);
}

fn mutating(policy: &Value, keeps: bool, errors: &mut Errors) {
    let spec = At::root(policy).field("spec");
    common(&spec, true, keeps, errors);
    if spec.items("mutations").is_empty() {
        spec.field("mutations").required("mutations must contain at least one item", errors);
    }
    for mutation in spec.each("mutations") {
        self::mutation(&mutation, errors);
    }
    reinvocation_policy(&spec.field("reinvocationPolicy"), errors);
}

fn mutation(at: &At<'_>, errors: &mut Errors) {
    let kind = at.field("patchType");
    let (wanted, other) = match kind.str() {
        "JSONPatch" => ("jsonPatch", "applyConfiguration"),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
        _ => return kind.one_of(&["ApplyConfiguration", "JSONPatch"], errors),
    };
    match at.some(wanted) {
        None => {
            let text = format!("must be specified when patchType is {}", kind.str());
            at.field(wanted).required(&text, errors);
        }
        Some(patch) => said(&patch.field("expression"), "", errors),
    }
    if at.has(other) {
        let text = format!("must not be specified when patchType is {}", kind.str());
        errors.push(FieldError::invalid(at.path.child(other), format!("{{{other}}}"), text));
    }
}

/// What both kinds of bindings begin with.
fn binding<'a>(binding: &'a Value, errors: &mut Errors) -> At<'a> {
    let spec = At::root(binding).field("spec");
    spec.field("policyName").required_name(names::is_dns1123_subdomain, errors);
    if let Some(reference) = spec.some("paramRef") {
        param_ref(&reference, errors);
    }
    match_resources(&spec.field("matchResources"), errors);
    spec
}

fn validating_binding(object: &Value, errors: &mut Errors) {
    let spec = binding(object, errors);
    let (list, mut known) = (spec.field("validationActions"), BTreeSet::new());
    for action in spec.each("validationActions") {
        action.known(&["Audit", "Deny", "Warn"], errors);
        if !known.insert(action.str()) {
            action.duplicate(errors);
        }
    }
    if known.contains("Deny") && known.contains("Warn") {
        let text = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        list.invalid(text, errors);
    }
    if known.is_empty() {
        list.required("at least one validation action is required", errors);
    }
}

fn mutating_binding(object: &Value, errors: &mut Errors) {
    let spec = binding(object, errors);
    mutable(&spec.field("matchResources"), errors);
}

fn param_ref(at: &At<'_>, errors: &mut Errors) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let (name, selector) = (at.field("name"), at.some("selector"));
    let named = !name.str().is_empty();
    name.optional(names::is_path_segment, errors);
    if let Some(selector) = &selector {
        if named {
            name.forbidden(EXCLUSIVE, errors);
        }
        label_selector(selector, errors);
        if named {
            selector.forbidden(EXCLUSIVE, errors);
        }
    } else if !named {
        at.required("one of name or selector must be specified", errors);
    }
    at.field("parameterNotFoundAction").one_of(&["Deny", "Allow"], errors);
}

fn status(status: &At<'_>, errors: &mut Errors) {
    for warning in status.field("typeChecking").each("expressionWarnings") {
        for field in ["warning", "fieldRef"] {
            let at = warning.field(field);
            let text = if field == "fieldRef" { at.str().trim() } else { at.str() };
            if text.is_empty() {
                at.required("", errors);
            }
        }
    }
    conditions(status, errors);
}
