//! Whether an answer is whole: its code and reason agree, its causes make its message, and their fields are fields
//! of the kind.

use std::collections::HashSet;

use crate::support::Answer;
use meta::GroupVersionKind;
use schema::types::{self, Of, Type};
use serde_json::Value;

/// Fields that causes name though objects of v1 have none of the name: upstream's checks look at another form.
const ELSEWHERE: &[&str] = &[];

/// Reasons of causes.
const REASONS: &[&str] = &[
    "FieldValueRequired",
    "FieldValueInvalid",
    "FieldValueForbidden",
    "FieldValueNotSupported",
    "FieldValueDuplicate",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueNotFound",
    "FieldValueTypeInvalid",
    "InternalError",
];

/// Reason, field and message of each cause.
pub(super) fn causes(status: &Value) -> Vec<(String, String, String)> {
    let text = |cause: &Value, name: &str| cause[name].as_str().unwrap_or_default().to_owned();
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    causes
        .map(|cause| (text(cause, "reason"), text(cause, "field"), text(cause, "message")))
        .collect()
}

/// What is wrong with an answer to an object of a kind.
pub(super) fn whole(
    kind: &GroupVersionKind,
    of: &'static Type,
    sent: &Value,
    answer: &Answer,
) -> Vec<String> {
    let (code, value) = (answer.code.as_u16(), answer.json());
    if code == 201 {
        let right =
            value["kind"] == kind.kind.as_str() && value["apiVersion"] == kind.api_version();
        return if right { vec![] } else { vec![format!("answered as {}", value["kind"])] };
    }
    let mut wrong = Vec::new();
    let reason = match code {
        400 => "BadRequest",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "AlreadyExists",
        413 => "RequestEntityTooLarge",
        422 => "Invalid",
        other => return vec![format!("code {other}")],
    };
    let is = |field: &str, expected: &str| value[field] == expected;
    if !(is("kind", "Status")
        && is("apiVersion", "v1")
        && is("status", "Failure")
        && is("reason", reason)
        && value["code"] == code)
    {
        wrong.push(format!("no whole Status: {value}"));
    }
    if code == 422 {
        invalid(kind, of, sent, &value, &mut wrong);
    }
    wrong
}

fn invalid(
    kind: &GroupVersionKind,
    of: &'static Type,
    sent: &Value,
    status: &Value,
    wrong: &mut Vec<String>,
) {
    let details = &status["details"];
    if details["kind"] != kind.kind.as_str()
        || details["group"].as_str().unwrap_or_default() != kind.group
    {
        wrong.push(format!("details {details}"));
    }
    let causes = causes(status);
    if causes.is_empty() {
        wrong.push("no causes".to_owned());
    }
    let mut seen = HashSet::new();
    let texts: Vec<String> =
        causes.iter().map(|(_, field, message)| format!("{field}: {message}")).collect();
    let texts: Vec<&str> =
        texts.iter().map(String::as_str).filter(|text| seen.insert(*text)).collect();
    let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
    let listed =
        if let [one] = texts[..] { one.to_owned() } else { format!("[{}]", texts.join(", ")) };
    let shown = details["name"].as_str().unwrap_or_default();
    let expected = format!("{}{group} {shown:?} is invalid: {listed}", kind.kind);
    let generated = sent["metadata"].get("generateName").is_some();
    if status["message"] != expected.as_str() && !shown.contains(['\\', '"']) && !generated {
        wrong.push(format!("causes make another message: {expected}"));
    }
    for (reason, field, _) in &causes {
        if !REASONS.contains(&reason.as_str()) {
            wrong.push(format!("reason {reason:?}"));
        }
        if !is_field(of, field) && !ELSEWHERE.contains(&field.as_str()) {
            wrong.push(format!("no field {field:?}"));
        }
    }
}

/// Whether a path leads through fields of a type: names after dots, keys and positions in brackets.
fn is_field(of: &'static Type, path: &str) -> bool {
    let (mut at, mut rest) = (Of::Object(of.id), path);
    loop {
        match at {
            Of::Object(id) => {
                let name = rest.split(['.', '[']).next().unwrap_or_default();
                let Some(field) = types::by_id(id).field(name) else { return false };
                (at, rest) = (field.of, &rest[name.len()..]);
            }
            Of::List(of) | Of::Map(of) => {
                // Keys may hold anything, brackets too.
                let Some(inner) = rest.strip_prefix('[') else { return false };
                let end = inner
                    .find("].")
                    .or_else(|| inner.find("]["))
                    .unwrap_or(inner.len().saturating_sub(1));
                let Some(after) = inner.get(end + 1..) else { return false };
                (at, rest) = (*of, after);
            }
            Of::Any => return true,
            _ => return rest.is_empty(),
        }
        if rest.is_empty() {
            return true;
        }
        if let Of::Object(_) = at {
            let Some(after) = rest.strip_prefix('.') else { return false };
            rest = after;
        }
    }
}

/// Whether one path leads to the other, or both have the object around them in common.
pub(super) fn related(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_start_matches('.'), other.trim_start_matches('.'));
    let around = |path: &str| {
        path.rsplit_once(['.', '[']).map_or(String::new(), |(above, _)| above.to_owned())
    };
    one.starts_with(other) || other.starts_with(one) || one.starts_with(&around(other))
}
