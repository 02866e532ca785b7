//! What is no object, or not one of its kind: syntax, fields, envelopes, names.

use serde_json::json;

use super::{
    CONFIG_MAPS, Case, DEPLOYMENTS, JSON, LABEL, PODS, SECRETS, SUBDOMAIN, YAML, get, post,
};

pub(super) fn malformed() -> Vec<Case> {
    let unrecognized = "the object provided is unrecognized (must be of type ConfigMap): couldn't \
                        get version/kind; json parse error: ";
    vec![
        post(CONFIG_MAPS, "").bad(format!("{unrecognized}unexpected end of JSON input (<empty>)")),
        post(CONFIG_MAPS, "{\"kind\":\"ConfigMap\",")
            .bad(format!("{unrecognized}unexpected end of JSON input ({{\"kind\":\"ConfigMap\",)")),
        post(CONFIG_MAPS, "{\"a\":1,}").bad(format!(
            "{unrecognized}invalid character '}}' looking for beginning of object key string \
             ({{\"a\":1,}})"
        )),
        post(CONFIG_MAPS, "[1]").bad(format!(
            "{unrecognized}json: cannot unmarshal array into Go value of type \
             struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
             \"json:\\\"kind,omitempty\\\"\" }} (5b315d)"
        )),
        post(CONFIG_MAPS, "{\"a\":nope}").bad(format!(
            "{unrecognized}invalid character 'o' in literal null (expecting 'u') ({{\"a\":nope}})"
        )),
        Case { content_type: YAML, ..post(CONFIG_MAPS, "kind: ConfigMap\n  apiVersion: v1\n") }
            .bad(
                "the object provided is unrecognized (must be of type ConfigMap): error converting YAML to JSON: \
                 yaml: mapping values are not allowed …",
            ),
        Case { content_type: "text/plain", ..post(CONFIG_MAPS, "{}") }.is(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: …",
        ),
    ]
}

pub(super) fn wrong_fields() -> Vec<Case> {
    let strict = format!("{DEPLOYMENTS}?fieldValidation=Strict");
    let deployment = |spec: &str| {
        format!(
            r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"w"}},"spec":{spec}}}"#
        )
    };
    let template = r#""selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;
    let cannot =
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: ";
    vec![
        post(&strict, &deployment(&format!(r#"{{"replica":1,{template}}}"#)))
            .bad(format!("{cannot}unknown field \"spec.replica\"")),
        post(&strict, &deployment(&format!(r#"{{"replicas":1,"replicas":2,{template}}}"#)))
            .bad(format!("{cannot}duplicate field \"spec.replicas\"")),
        post(
            &strict,
            &deployment(&format!(r#"{{"replica":1,"paused":true,"paused":true,{template}}}"#)),
        )
        .bad(format!(
            "{cannot}unknown field \"spec.replica\", duplicate field \"spec.paused\""
        )),
        post(DEPLOYMENTS, &deployment(&format!(r#"{{"replicas":"one",{template}}}"#))).bad(
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot \
             unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        post(DEPLOYMENTS, &deployment(&format!(r#"{{"paused":1,{template}}}"#))).bad(
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot \
             unmarshal number into Go struct field DeploymentSpec.spec.paused of type bool",
        ),
        post(CONFIG_MAPS, r#"{"metadata":{"name":"t"},"data":{"a":1}}"#).bad(
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal \
             number into Go struct field ConfigMap.data of type string",
        ),
        post(SECRETS, r#"{"metadata":{"name":"t"},"data":{"a":"%%%"}}"#).bad(
            "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input \
             byte 0",
        ),
        post(
            PODS,
            r#"{"metadata":{"name":"q"},"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"much"}}}]}}"#,
        )
        .bad(
            "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular \
             expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        post(&format!("{CONFIG_MAPS}?fieldValidation=Never"), r#"{"metadata":{"name":"t"}}"#).is(
            422,
            "Invalid",
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \
             \"Never\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
        ),
    ]
}

pub(super) fn wrong_envelopes() -> Vec<Case> {
    vec![
        post(CONFIG_MAPS, r#"{"apiVersion":"v1","kind":"Gadget","metadata":{"name":"a"}}"#).bad(
            "Gadget in version \"v1\" cannot be handled as a ConfigMap: no kind \"Gadget\" is \
             registered for version \"v1\" in scheme …",
        ),
        post(CONFIG_MAPS, r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#).bad(
            "Pod in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Pod) to \
             (core.ConfigMap): unknown conversion",
        ),
        post(CONFIG_MAPS, r#"{"metadata":{"name":"a","namespace":"other"}}"#).bad(
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        post(
            "/api/v1/namespaces/nowhere/configmaps",
            r#"{"metadata":{"name":"a","namespace":"nowhere"}}"#,
        )
        .is(404, "NotFound", "namespaces \"nowhere\" not found"),
        get(&format!("{CONFIG_MAPS}/nothing")).is(
            404,
            "NotFound",
            "configmaps \"nothing\" not found",
        ),
        get("/api/v1/gadgets").is(
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        Case { method: "PATCH", content_type: JSON, ..post(&format!("{CONFIG_MAPS}/x"), "{}") }.is(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, …",
        ),
        post(&format!("{CONFIG_MAPS}/x"), "{}").is(405, "MethodNotAllowed", "…"),
    ]
}

pub(super) fn wrong_names() -> Vec<Case> {
    let long = "x".repeat(254);
    vec![
        post(CONFIG_MAPS, r#"{"data":{}}"#).invalid(
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is \
             required",
            &["FieldValueRequired metadata.name"],
        ),
        post(CONFIG_MAPS, r#"{"metadata":{"name":"Not_A_Name"}}"#).invalid(
            format!(
                "ConfigMap \"Not_A_Name\" is invalid: metadata.name: Invalid value: \
                 \"Not_A_Name\": {SUBDOMAIN}"
            ),
            &["FieldValueInvalid metadata.name"],
        ),
        post(CONFIG_MAPS, &json!({"metadata": {"name": long}}).to_string()).invalid(
            format!(
                "ConfigMap \"{long}\" is invalid: metadata.name: Invalid value: \"{long}\": must \
                 be no more than 253 bytes"
            ),
            &["FieldValueInvalid metadata.name"],
        ),
        post("/api/v1/namespaces", r#"{"metadata":{"name":"a_b"}}"#).invalid(
            format!("Namespace \"a_b\" is invalid: metadata.name: Invalid value: \"a_b\": {LABEL}"),
            &["FieldValueInvalid metadata.name"],
        ),
        post("/api/v1/namespaces", r#"{"metadata":{"name":"a.b"}}"#).invalid(
            "Namespace \"a.b\" is invalid: metadata.name: Invalid value: \"a.b\": must not contain \
             dots",
            &["FieldValueInvalid metadata.name"],
        ),
        post(CONFIG_MAPS, r#"{"metadata":{"name":"a"},"data":{"a/b":"c"}}"#).invalid(
            "ConfigMap \"a\" is invalid: data[a/b]: Invalid value: \"a/b\": a valid config key \
             must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
             'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
            &["FieldValueInvalid data[a/b]"],
        ),
        post(CONFIG_MAPS, r#"{"metadata":{"name":"a","labels":{"k":"no spaces"}}}"#).invalid(
            "ConfigMap \"a\" is invalid: metadata.labels: Invalid value: \"no spaces\": a valid \
             label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
             and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
             'my_value',  or '12345', regex used for validation is \
             '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            &["FieldValueInvalid metadata.labels"],
        ),
        post(CONFIG_MAPS, r#"{"metadata":{"name":"a","annotations":{"/x":"y"}}}"#).invalid(
            "ConfigMap \"a\" is invalid: metadata.annotations: Invalid value: \"/x\": prefix part \
             must be non-empty",
            &["FieldValueInvalid metadata.annotations"],
        ),
        post(CONFIG_MAPS, r#"{"metadata":{"name":"kube-root-ca.crt"}}"#).is(
            409,
            "AlreadyExists",
            "configmaps \"kube-root-ca.crt\" already exists",
        ),
    ]
}
