//! Rules of the specification of Jobs and of what CronJobs make them from.

use meta::{FieldError, names};
use serde_json::Value;

use super::policy;
use crate::rules::at::{At, Errors};
use crate::rules::pod;
use crate::view::View;

const MOST_PARALLEL: i64 = 100_000;
const MOST_FAILED: i64 = 100_000;
const MANY_COMPLETIONS: i64 = 100_000;
/// Bounds of Jobs with many completions that count failures by index.
const MOST_OF_MANY: i64 = 10_000;
const LONGEST_MANAGER: usize = 63;

/// Checks a specification without its selector; `old` is the template that it had before.
pub(super) fn validate(spec: &At<'_>, old: Option<&Value>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.field(field).not_negative(errors);
    }
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        spec.field("backoffLimitPerIndex").required("when maxFailedIndexes is specified", errors);
    }
    if let Some(manager) = spec.some("managedBy") {
        domain_prefixed_path(&manager, errors);
        manager.no_longer(LONGEST_MANAGER, errors);
    }
    completion(spec, errors);
    if let Some(failure) = spec.some("podFailurePolicy") {
        policy::failure(&failure, spec, errors);
    }
    match spec.some("successPolicy") {
        Some(success) if spec.str_of("completionMode") != "Indexed" => {
            success.invalid("requires indexed completion mode", errors);
        }
        Some(success) => policy::success(&success, spec, errors),
        None => {}
    }
    let replacement = spec.field("podReplacementPolicy");
    let words: &[&str] =
        if spec.has("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    replacement.known(words, errors);
    let template = spec.field("template");
    pod::template(&template, old, errors);
    let restart = template.field("spec").field("restartPolicy");
    match restart.str() {
        "Always" | "" => restart.required("valid values: \"OnFailure\", \"Never\"", errors),
        "OnFailure" if spec.has("podFailurePolicy") => {
            let text = "only \"Never\" is supported when podFailurePolicy is specified";
            restart.invalid(text, errors);
        }
        _ => restart.known(&["OnFailure", "Never"], errors),
    }
}

fn completion(spec: &At<'_>, errors: &mut Errors) {
    let mode = spec.field("completionMode");
    mode.known(&["NonIndexed", "Indexed"], errors);
    if mode.str() == "Indexed" {
        return indexed(spec, errors);
    }
    if matches!(mode.str(), "" | "NonIndexed") {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(found) = spec.some(field) {
                found.invalid("requires indexed completion mode", errors);
            }
        }
    }
}

fn indexed(spec: &At<'_>, errors: &mut Errors) {
    let [completions, parallelism, failed] =
        ["completions", "parallelism", "maxFailedIndexes"].map(|field| spec.field(field));
    if completions.value.is_null() {
        completions.required("when completion mode is Indexed", errors);
    }
    let mut exceeds = |at: &At<'_>, most: i64, text: String| {
        if at.number() > most {
            at.invalid(text, errors);
        }
    };
    let most = format!("must be less than or equal to {MOST_PARALLEL}");
    exceeds(&parallelism, MOST_PARALLEL, format!("{most} when completion mode is Indexed"));
    if !completions.value.is_null() {
        let text = "must be less than or equal to completions".to_owned();
        exceeds(&failed, completions.number(), text);
    }
    exceeds(&failed, MOST_FAILED, format!("must be less than or equal to {MOST_FAILED}"));
    if completions.number() <= MANY_COMPLETIONS || !spec.has("backoffLimitPerIndex") {
        return;
    }
    if failed.value.is_null() {
        let text = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        failed.required(&text, errors);
    }
    let text = format!(
        "must be less than or equal to {MOST_OF_MANY} when completions are above {MANY_COMPLETIONS} and used \
         with backoff limit per index"
    );
    for at in [parallelism, failed] {
        if at.number() > MOST_OF_MANY {
            at.invalid(text.clone(), errors);
        }
    }
}

/// A domain, a slash and a path.
fn domain_prefixed_path(at: &At<'_>, errors: &mut Errors) {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    match at.str().split_once('/') {
        _ if at.str().is_empty() => at.required("", errors),
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            for problem in names::is_dns1123_subdomain(host) {
                errors.push(FieldError::invalid(&at.path, host, problem));
            }
            if !path.bytes().all(legal) {
                let text =
                    names::regex_error("Invalid path", "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+", &[]);
                errors.push(FieldError::invalid(&at.path, path, text));
            }
        }
        _ => {
            at.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")", errors);
        }
    }
}
