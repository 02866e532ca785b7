//! One fixture for each control and form: a pod that it allows, one that it forbids, and what is said.

use serde_json::{Value, json};

use super::checks::{Pod, details, violations};
use super::policy::{Level, LevelVersion, Policy, Version};

fn asked(level: &str, version: &str) -> LevelVersion {
    let labels = json!({
        "pod-security.kubernetes.io/enforce": level,
        "pod-security.kubernetes.io/enforce-version": version,
    });
    let (policy, errors) = Policy::of(&labels, &Policy::default());
    assert!(errors.is_empty(), "{errors:?}");
    policy.enforce
}

fn told(level: &str, version: &str, pod: &Value) -> String {
    let pod = Pod { metadata: &pod["metadata"], spec: &pod["spec"] };
    details(&violations(asked(level, version), pod))
}

/// The fixtures: blocks of `level version | what is said`, then pods as YAML flow, one a line.
#[test]
fn every_control_allows_and_forbids_what_upstream_says() {
    let mut seen = 0;
    let mut expected: Option<(&str, &str, &str)> = None;
    for line in include_str!("fixtures.txt").lines().filter(|line| !line.starts_with('#')) {
        if line.is_empty() {
            continue;
        }
        if let Some((head, said)) = line.split_once(" | ") {
            let (level, version) = head.split_once(' ').expect("level and version");
            expected = Some((level, version, said));
            continue;
        }
        let (level, version, said) = expected.expect("a head before pods");
        let pod: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let said = if said == "allowed" { "" } else { said };
        assert_eq!(told(level, version, &pod), said, "{level}:{version} {line}");
        seen += 1;
    }
    assert!(seen > 60, "only {seen} pods");
}

#[test]
fn labels_say_what_is_asked() {
    let of = |labels: Value| {
        let (policy, errors) = Policy::of(&labels, &Policy::default());
        let told: Vec<String> = policy.modes().iter().map(ToString::to_string).collect();
        (told.join(" "), errors.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let plain = "privileged:latest privileged:latest privileged:latest";
    assert_eq!(of(json!({})), (plain.to_owned(), vec![]));
    let warned = "baseline:v1.30 privileged:latest baseline:v1.30";
    let labels = json!({
        "pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/enforce-version": "v1.30",
    });
    assert_eq!(of(labels), (warned.to_owned(), vec![]));
    let labels = json!({
        "pod-security.kubernetes.io/enforce": "strict",
        "pod-security.kubernetes.io/audit": "strict",
        "pod-security.kubernetes.io/warn-version": "v1.03",
    });
    let (policy, errors) = of(labels);
    assert_eq!(policy, "restricted:latest privileged:latest privileged:latest");
    assert_eq!(
        errors,
        [
            r#"metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted"#,
            r#"metadata.labels[pod-security.kubernetes.io/audit]: Invalid value: "strict": must be one of privileged, baseline, restricted"#,
            r#"metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: "v1.03": must be "latest" or "v1.x""#,
        ]
    );
}

#[test]
fn defaults_come_from_the_configuration() {
    let policy = Policy::configured(
        &json!({"enforce": "baseline", "warn": "restricted", "warn-version": "v1.25"}),
    );
    let policy = policy.expect("valid");
    assert_eq!(policy.enforce, LevelVersion { level: Level::Baseline, version: Version::LATEST });
    assert_eq!(policy.warn.to_string(), "restricted:v1.25");
    assert!(Policy::configured(&json!({"enforce": "none"})).is_err());
}

#[test]
fn only_images_and_new_containers_make_another_pod() {
    let pod = |image: &str| json!({"spec": {"containers": [{"name": "a", "image": image}]}});
    assert!(!super::is_significant(&pod("a"), &pod("a")));
    assert!(super::is_significant(&pod("b"), &pod("a")));
    let mut debugged = pod("a");
    debugged["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "x"}]);
    assert!(super::is_significant(&debugged, &pod("a")));
    assert!(!super::is_significant(&debugged, &debugged));
}
