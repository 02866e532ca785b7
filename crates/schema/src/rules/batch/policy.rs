//! Rules of what makes a Job fail or succeed before its pods have all ended (KEP-3329, KEP-3998).

use std::collections::HashSet;

use meta::{FieldError, names};
use serde_json::Value;

use super::indexes;
use crate::rules::at::{At, Errors};
use crate::view::View;

const MOST_RULES: usize = 20;
const MOST_PATTERNS: usize = 20;
const MOST_CODES: usize = 255;
const LONGEST_INDEXES: usize = 64 * 1024;

/// A word that must be there, and one of these.
fn word(at: &At<'_>, words: &[&str], errors: &mut Errors) {
    if at.str().is_empty() {
        let quoted: Vec<String> = words.iter().map(|word| meta::quote(word)).collect();
        at.required(&format!("valid values: [{}]", quoted.join(" ")), errors);
    } else {
        at.known(words, errors);
    }
}

pub(super) fn failure(policy: &At<'_>, spec: &At<'_>, errors: &mut Errors) {
    policy.field("rules").no_more(MOST_RULES, errors);
    let containers: HashSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec.at("template").at("spec").items(list))
        .map(|container| container.text("name"))
        .collect();
    for rule in policy.each("rules") {
        let action = rule.field("action");
        if action.str() == "FailIndex" && !spec.has("backoffLimitPerIndex") {
            action.invalid("requires the backoffLimitPerIndex to be set", errors);
        }
        word(&action, &["Count", "FailIndex", "FailJob", "Ignore"], errors);
        let codes = rule.some("onExitCodes");
        if let Some(codes) = &codes {
            exit_codes(codes, &containers, errors);
        }
        let patterns = rule.items("onPodConditions").len();
        rule.field("onPodConditions").no_more(MOST_PATTERNS, errors);
        for pattern in rule.each("onPodConditions") {
            pattern.field("type").check(names::is_qualified_name, errors);
            word(&pattern.field("status"), &["False", "True", "Unknown"], errors);
        }
        match (codes.is_some(), patterns > 0) {
            (true, true) => rule
                .wrong("specifying both OnExitCodes and OnPodConditions is not supported", errors),
            (false, false) => {
                rule.wrong("specifying one of OnExitCodes and OnPodConditions is required", errors);
            }
            _ => {}
        }
    }
}

fn exit_codes(at: &At<'_>, containers: &HashSet<&str>, errors: &mut Errors) {
    word(&at.field("operator"), &["In", "NotIn"], errors);
    if let Some(name) = at.some("containerName").filter(|name| !containers.contains(name.str())) {
        let text = "must be one of the container or initContainer names in the pod template";
        name.invalid(text, errors);
    }
    let values = at.field("values");
    if at.items("values").is_empty() {
        values.invalid("at least one value is required", errors);
    }
    values.no_more(MOST_CODES, errors);
    let (mut seen, mut ordered, mut last) = (HashSet::new(), true, i64::MIN);
    for code in at.each("values") {
        if at.str_of("operator") == "In" && code.number() == 0 {
            code.invalid("must not be 0 for the In operator", errors);
        }
        if !seen.insert(code.number()) {
            code.duplicate(errors);
        }
        ordered &= last <= code.number();
        last = code.number();
    }
    if !ordered {
        values.invalid("must be ordered", errors);
    }
}

pub(super) fn success(policy: &At<'_>, spec: &At<'_>, errors: &mut Errors) {
    let rules = policy.field("rules");
    if policy.items("rules").is_empty() {
        let text = "at least one rules must be specified when the successPolicy is specified";
        rules.required(text, errors);
    }
    rules.no_more(MOST_RULES, errors);
    let completions = spec.int("completions").unwrap_or_default();
    for rule in policy.each("rules") {
        success_rule(&rule, completions, errors);
    }
}

fn success_rule(rule: &At<'_>, completions: i64, errors: &mut Errors) {
    let (listed, count) = (rule.some("succeededIndexes"), rule.some("succeededCount"));
    if listed.is_none() && count.is_none() {
        let text = "at least one of succeededCount or succeededIndexes must be specified";
        rule.required(text, errors);
    }
    let mut total = None;
    if let Some(listed) = listed {
        listed.no_longer(LONGEST_INDEXES, errors);
        total = Some(match indexes::count(listed.str(), completions) {
            Ok(total) => total,
            Err(problem) => {
                listed.invalid(format!("error parsing succeededIndexes: {problem}"), errors);
                0
            }
        });
    }
    let Some(count) = count else { return };
    count.not_negative(errors);
    let mut exceeds = |most: i64, what: &str| {
        if count.number() > most {
            let text = format!("must be less than or equal to {most} ({what})");
            errors.push(FieldError::invalid(&count.path, Value::from(count.number()), text));
        }
    };
    exceeds(completions, "the number of specified completions");
    if let Some(total) = total {
        exceeds(total, "the number of indexes in the specified succeededIndexes field");
    }
}
