//! Decoding: the texts clients parse, and what is dropped or made canonical.

use meta::GroupVersionKind;
use serde_json::{Value, json};

use super::*;

fn deployment() -> GroupVersionKind {
    GroupVersionKind::new("apps", "v1", "Deployment")
}

fn core(kind: &str) -> GroupVersionKind {
    GroupVersionKind::new("", "v1", kind)
}

fn strict(kind: &GroupVersionKind, body: &str) -> Result<Value, String> {
    decode(kind, body.as_bytes(), FieldValidation::Strict)
        .map(|d| d.value)
        .map_err(|error| error.to_string())
}

#[track_caller]
fn check_refused(kind: &GroupVersionKind, body: &str, expected: &str) {
    assert_eq!(strict(kind, body), Err(expected.to_owned()));
}

#[test]
fn unknown_and_duplicate_fields() {
    let body = r#"{"apiVersion":"apps/v1","kind":"Deployment","spec":{"foo":1,"replicas":1,"replicas":2,
        "template":{"spec":{"containers":[{"name":"a","imag":"b"}]}}}}"#;
    check_refused(
        &deployment(),
        body,
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: \
         unknown field \"spec.foo\", duplicate field \"spec.replicas\", \
         unknown field \"spec.template.spec.containers[0].imag\"",
    );
    let warned =
        decode(&deployment(), body.as_bytes(), FieldValidation::Warn).expect("only warnings");
    assert_eq!(warned.warnings[0], "unknown field \"spec.foo\"");
    assert_eq!(warned.warnings.len(), 3);
    assert_eq!(warned.value["spec"]["replicas"], 2);
    let ignored =
        decode(&deployment(), body.as_bytes(), FieldValidation::Ignore).expect("nothing said");
    assert_eq!(ignored.warnings, Vec::<String>::new());
    check_refused(
        &core("ConfigMap"),
        r#"{"data":{"a":"1","a":"2"}}"#,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"data.a\"",
    );
}

#[test]
fn wrong_types() {
    check_refused(
        &deployment(),
        r#"{"kind":"Deployment","apiVersion":"apps/v1","spec":{"replicas":"three","paused":1}}"#,
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go \
         struct field DeploymentSpec.spec.replicas of type int32",
    );
    check_refused(
        &deployment(),
        r#"{"spec":{"template":{"spec":{"containers":[{"env":[{"name":"A","value":1}]}]}}}}"#,
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number into Go \
         struct field EnvVar.spec.template.spec.containers.env.value of type string",
    );
    check_refused(
        &deployment(),
        r#"{"spec":{"replicas":1.5}}"#,
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number 1.5 into Go \
         struct field DeploymentSpec.spec.replicas of type int32",
    );
    check_refused(
        &core("Pod"),
        r#"{"spec":{"containers":{"name":"a"}}}"#,
        "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal object into Go \
         struct field PodSpec.spec.containers of type []v1.Container",
    );
    check_refused(
        &core("ConfigMap"),
        r#"{"data":{"a":1}}"#,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go \
         struct field ConfigMap.data of type string",
    );
    check_refused(
        &core("Secret"),
        r#"{"data":{"a":"not base64"}}"#,
        "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 3",
    );
}

#[test]
fn other_kinds_and_versions() {
    check_refused(
        &core("Pod"),
        r#"{"kind":"Service","apiVersion":"v1"}"#,
        "Service in version \"v1\" cannot be handled as a Pod: converting (v1.Service) to (core.Pod): unknown conversion",
    );
    check_refused(
        &core("Pod"),
        r#"{"kind":"Pod","apiVersion":"apps/v1"}"#,
        "Pod in version \"v1\" cannot be handled as a Pod: no kind \"Pod\" is registered for version \"apps/v1\" in \
         scheme \"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30\"",
    );
    check_refused(
        &GroupVersionKind::new("autoscaling", "v2", "HorizontalPodAutoscaler"),
        r#"{"kind":"HorizontalPodAutoscaler","apiVersion":"autoscaling/v1"}"#,
        "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)",
    );
    let filled = strict(&core("Pod"), "{}").expect("kind and version may be absent");
    assert_eq!(filled, json!({"kind": "Pod", "apiVersion": "v1"}));
}

#[test]
fn bodies_that_are_no_json() {
    check_refused(
        &core("Pod"),
        "",
        "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: \
         unexpected end of JSON input (<empty>)",
    );
    let unrecognized = "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error:";
    let check = |body: &str, problem: &str| {
        check_refused(&core("Pod"), body, &format!("{unrecognized} {problem}"));
    };
    check("{\"kind\":", "unexpected end of JSON input ({\"kind\":)");
    check("kind: Pod", "invalid character 'k' looking for beginning of value (6b696e643a20506f64)");
    check("nope", "invalid character 'o' in literal null (expecting 'u') (6e6f7065)");
    check(
        "{\"a\":1 \"b\"}",
        "invalid character '\"' after object key:value pair ({\"a\":1 \"b\"})",
    );
    check("{} {}", "invalid character '{' after top-level value ({} {})");
    check(
        "[]",
        "json: cannot unmarshal array into Go value of type struct { APIVersion string \
         \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" } (5b5d)",
    );
    let deep = "[".repeat(10_000);
    assert!(strict(&core("Pod"), &format!("{{\"spec\":{deep}")).is_err());
}

#[test]
fn objects_do_not_nest_without_end() {
    let revision = GroupVersionKind::new("apps", "v1", "ControllerRevision");
    for (open, close) in [("{\"a\":", "}"), ("[", "]")] {
        let body = |levels: usize| {
            format!("{{\"data\":{}0{}}}", open.repeat(levels), close.repeat(levels))
        };
        assert!(strict(&revision, &body(99)).is_ok());
        let refused = "ControllerRevision in version \"v1\" cannot be handled as a ControllerRevision: \
                       exceeded max depth";
        check_refused(&revision, &body(100), refused);
        let value = serde_json::from_str(&body(110)).expect("JSON");
        let decoded = decode_value(&revision, &value, FieldValidation::Ignore);
        assert_eq!(decoded.map_err(|error| error.to_string()), Err(refused.to_owned()));
        let patch = parse(body(110).as_bytes()).map_err(|error| error.to_string());
        assert_eq!(patch, Err("exceeded max depth".to_owned()));
    }
}

#[test]
fn drops_and_canonicalizes() {
    let body = r#"{"metadata":{"name":"a","labels":null,"annotations":{},"creationTimestamp":null},
        "spec":{"containers":[{"name":"c","args":[],"command":["a",null],
          "resources":{"limits":{"cpu":"1000m","memory":1024}}}],
          "volumes":[{"name":"v","emptyDir":{}}]}}"#;
    assert_eq!(
        strict(&core("Pod"), body).expect("a pod"),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "c", "command": ["a", ""],
                "resources": {"limits": {"cpu": "1", "memory": "1024"}}}],
                "volumes": [{"name": "v", "emptyDir": {}}]}})
    );
}

#[test]
fn decodes_values_and_parses_patches() {
    let object =
        json!({"kind": "Pod", "apiVersion": "v1", "spec": {"nodeName": null, "hostname": "a"}});
    let decoded = decode_value(&core("Pod"), &object, FieldValidation::Strict).expect("a pod");
    assert_eq!(decoded.value["spec"], json!({"hostname": "a"}));
    let (patch, duplicates) = parse(br#"{"a":{"b":1,"b":null}}"#).expect("JSON");
    assert_eq!(patch, json!({"a": {"b": null}}));
    assert_eq!(duplicates, ["duplicate field \"a.b\""]);
}

/// Values made up from the type graph, so that every built-in kind is walked through.
mod made_up {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;
    use crate::rules;
    use crate::types::{self, Of};

    /// Bytes to make choices with; zero when they run out.
    struct Choices<'a>(std::slice::Iter<'a, u8>);

    impl Choices<'_> {
        fn next(&mut self, of: u8) -> u8 {
            self.0.next().map_or(0, |byte| byte % of)
        }
    }

    fn value(of: &Of, choices: &mut Choices<'_>, depth: usize) -> Value {
        const TEXTS: &[&str] = &["a", "b.c", "Always", "10.0.0.1", "/x", "5%"];
        match of {
            Of::String | Of::Any => json!(TEXTS[usize::from(choices.next(6))]),
            Of::Bool => json!(choices.next(2) == 1),
            Of::Int32 | Of::Int64 | Of::Double => json!(i64::from(choices.next(7)) - 1),
            Of::IntOrString => [json!(80), json!("25%")][usize::from(choices.next(2))].clone(),
            Of::Bytes => json!("eA=="),
            Of::Quantity => json!(["1", "500m", "1Gi"][usize::from(choices.next(3))]),
            Of::Time => json!("2026-01-01T00:00:00Z"),
            Of::MicroTime => json!("2026-01-01T00:00:00.000000Z"),
            Of::List(of) if depth > 0 => {
                (0..=choices.next(2)).map(|_| value(of, choices, depth - 1)).collect()
            }
            Of::Map(of) if depth > 0 => json!({"k": value(of, choices, depth - 1)}),
            Of::Object(id) if depth > 0 => object(types::by_id(*id), choices, depth - 1),
            Of::Object(_) | Of::Map(_) => json!({}),
            Of::List(_) => json!([]),
        }
    }

    fn object(of: &Type, choices: &mut Choices<'_>, depth: usize) -> Value {
        let mut object = Map::new();
        for field in of.fields.iter().filter(|field| !matches!(field.name, "apiVersion" | "kind")) {
            if choices.next(3) != 0 {
                object.insert(field.name.to_owned(), value(&field.of, choices, depth));
            }
        }
        Value::Object(object)
    }

    proptest! {
        /// What has the right types is decoded, what was decoded stays as it is, and no rule panics.
        #[test]
        fn objects_of_every_kind(at in 0..types::all().len(), bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let of = &types::all()[at];
            let Some((group, version, name)) = types::kind_of(of) else { return Ok(()) };
            let kind = GroupVersionKind::new(group, version, name);
            let made = object(of, &mut Choices(bytes.iter()), 6);
            let decoded = decode_value(&kind, &made, FieldValidation::Strict);
            let decoded = decoded.map_err(|error| TestCaseError::fail(format!("{kind}: {error}")))?.value;
            let again = decode(&kind, decoded.to_string().as_bytes(), FieldValidation::Strict);
            prop_assert_eq!(&again.expect("decodes again").value, &decoded);
            let mut defaulted = decoded.clone();
            rules::default(&kind, &mut defaulted);
            let once = defaulted.clone();
            rules::default(&kind, &mut defaulted);
            prop_assert_eq!(&once, &defaulted, "{}", kind);
            let _ = rules::prepare_create(&kind, &mut defaulted);
            let _ = rules::warnings(&kind, &defaulted, None);
            let _ = rules::validate(&kind, &defaulted);
            let _ = rules::validate_update(&kind, &defaulted, &decoded);
            let _ = rules::validate_status(&kind, &defaulted, &decoded);
        }
    }
}
