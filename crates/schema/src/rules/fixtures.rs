//! Runs the cases of `fixtures/*.txt`: what is written, and what is wrong with it.
//!
//! A case begins with `create`, `update`, `status`, `approve`, `ephemeral` or `resize`, an API version and a kind. The object
//! follows, as JSON; before it, unless it is created, the old one. Then comes a line `> reason path: message`
//! for each error, in order; `…` at its end stands for the rest of the message. Cases are separated by empty
//! lines, and `#` begins a comment.

use meta::GroupVersionKind;
use serde_json::Value;

use super::*;

fn outcome(how: &str, kind: &GroupVersionKind, objects: &[Value]) -> Vec<String> {
    let mut objects = objects.to_vec();
    objects.iter_mut().for_each(|object| default(kind, object));
    let errors = match (how, objects.as_slice()) {
        ("create", [new]) => validate(kind, new),
        ("update", [old, new]) => validate_update(kind, new, old),
        ("status", [old, new]) => validate_status(kind, new, old),
        ("approve", [old, new]) => validate_approval(new, old),
        ("ephemeral", [old, new]) => validate_ephemeral(new, old),
        ("resize", [old, new]) => validate_resize(new, old),
        (how, objects) => panic!("{how} of {} objects", objects.len()),
    };
    let line = |error: &FieldError| format!("{} {error}", error.kind.reason()).replace('\n', "\\n");
    errors.iter().map(line).collect()
}

fn agrees(said: &str, expected: &str) -> bool {
    match expected.strip_suffix('…') {
        Some(start) => said.starts_with(start),
        None => said == expected,
    }
}

/// Runs one case; what differs, if anything does.
fn run(case: &str) -> Option<String> {
    let (head, rest) = case.split_once('\n')?;
    let words: Vec<&str> = head.split(' ').collect();
    let [how, version, kind] = words.as_slice() else { panic!("a case begins with {head:?}") };
    let kind = GroupVersionKind::from_api_version(version, kind).expect("an API version");
    let (json, expected): (Vec<&str>, Vec<&str>) =
        rest.lines().partition(|line| !line.starts_with("> "));
    let json = json.join("\n");
    let objects: Vec<Value> = serde_json::Deserializer::from_str(&json)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("{head}: {error}: {json}"));
    let said = outcome(how, &kind, &objects);
    let expected: Vec<&str> = expected.iter().map(|line| &line[2..]).collect();
    let same = said.len() == expected.len()
        && said.iter().zip(&expected).all(|(said, expected)| agrees(said, expected));
    (!same).then(|| {
        format!(
            "{head}\n{json}\nexpected\n  {}\ngot\n  {}",
            expected.join("\n  "),
            said.join("\n  ")
        )
    })
}

#[track_caller]
fn run_all(text: &str, least: usize) {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let text = lines.join("\n");
    let cases: Vec<&str> =
        text.split("\n\n").map(str::trim).filter(|case| !case.is_empty()).collect();
    assert!(cases.len() >= least, "{} cases", cases.len());
    let wrong: Vec<String> = cases.iter().filter_map(|case| run(case)).collect();
    assert!(wrong.is_empty(), "{} of {} cases\n\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
}

#[test]
fn storage() {
    run_all(include_str!("fixtures/storage.txt"), 14);
}

#[test]
fn networking() {
    run_all(include_str!("fixtures/networking.txt"), 20);
}

#[test]
fn access() {
    run_all(include_str!("fixtures/access.txt"), 15);
}

#[test]
fn admission() {
    run_all(include_str!("fixtures/admission.txt"), 12);
}

#[test]
fn flow_control() {
    run_all(include_str!("fixtures/flow.txt"), 10);
}

#[test]
fn classes_and_events() {
    run_all(include_str!("fixtures/classes.txt"), 12);
}

#[test]
fn devices() {
    run_all(include_str!("fixtures/devices.txt"), 12);
}

#[test]
fn pods() {
    run_all(include_str!("fixtures/pods.txt"), 12);
}

#[test]
fn changes_of_pods() {
    run_all(include_str!("fixtures/pod-changes.txt"), 15);
}

#[test]
fn workloads() {
    run_all(include_str!("fixtures/workloads.txt"), 17);
}

#[test]
fn jobs() {
    run_all(include_str!("fixtures/jobs.txt"), 8);
}

#[test]
fn core() {
    run_all(include_str!("fixtures/core.txt"), 19);
}

#[test]
fn volumes() {
    run_all(include_str!("fixtures/volumes.txt"), 7);
}
