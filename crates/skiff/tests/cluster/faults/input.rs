//! Bad input: Kubernetes' code, reason, field path and message, over plain HTTPS and through kubectl.

use serde_json::json;
use testkit::Cluster;

use super::http::request;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters \
    or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', \
    regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
    'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// One request and what must come back.
#[derive(Clone)]
struct Case {
    method: &'static str,
    path: String,
    content_type: &'static str,
    body: String,
    code: u16,
    reason: &'static str,
    /// The whole message; one that ends in `…` is only a beginning.
    message: String,
    /// `reason field` of each cause; not looked at when empty.
    causes: Vec<&'static str>,
}

/// A POST of JSON.
fn post(path: &str, body: &str) -> Case {
    Case {
        method: "POST",
        path: path.to_owned(),
        content_type: JSON,
        body: body.to_owned(),
        code: 201,
        reason: "",
        message: String::new(),
        causes: Vec::new(),
    }
}

fn put(path: &str, body: &str) -> Case {
    Case { method: "PUT", ..post(path, body) }
}

fn patch(path: &str, content_type: &'static str, body: &str) -> Case {
    Case { method: "PATCH", content_type, ..post(path, body) }
}

fn get(path: &str) -> Case {
    Case { method: "GET", content_type: "", ..post(path, "") }
}

impl Case {
    fn is(self, code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), ..self }
    }

    fn bad(self, message: impl Into<String>) -> Self {
        self.is(400, "BadRequest", message)
    }

    fn invalid(self, message: impl Into<String>, causes: &[&'static str]) -> Self {
        Self { causes: causes.to_vec(), ..self.is(422, "Invalid", message) }
    }

    /// What is wrong with the answer.
    fn check(&self, cluster: &Cluster) -> Option<String> {
        let answer =
            request(cluster, self.method, &self.path, self.content_type, self.body.as_bytes());
        let message_is_right = match self.message.strip_suffix('…') {
            Some(start) => answer.message().starts_with(start),
            None => answer.message() == self.message,
        };
        let causes: Vec<String> = answer.body["details"]["causes"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|cause| {
                let text = |name: &str| cause[name].as_str().unwrap_or_default();
                format!("{} {}", text("reason"), text("field"))
            })
            .collect();
        let right = answer.code == self.code
            && answer.reason() == self.reason
            && message_is_right
            && (self.causes.is_empty() || causes == self.causes);
        let body: String = self.body.chars().take(120).collect();
        (!right).then(|| {
            format!(
                "{} {} {body}\n  expected {} {} {:?} {:?}\n  answered {} {} {:?} {causes:?}",
                self.method,
                self.path,
                self.code,
                self.reason,
                self.message,
                self.causes,
                answer.code,
                answer.reason(),
                answer.message(),
            )
        })
    }
}

#[test]
fn bad_input_is_answered_in_kubernetes_words() {
    let cluster = Cluster::start(crate::SKIFF);
    let cases = [
        malformed(),
        wrong_fields(),
        wrong_envelopes(),
        wrong_names(),
        wrong_workloads(),
        wrong_services(),
        wrong_queries(),
        wrong_patches(&cluster),
        immutable(&cluster),
        concurrency(&cluster),
    ]
    .concat();
    let wrong: Vec<String> = cases.iter().filter_map(|case| case.check(&cluster)).collect();
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    warnings(&cluster);
    sizes(&cluster);
    kubectl(&cluster);
    super::assert_calm(&cluster);
}

fn malformed() -> Vec<Case> {
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

fn wrong_fields() -> Vec<Case> {
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

fn wrong_envelopes() -> Vec<Case> {
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

fn wrong_names() -> Vec<Case> {
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

fn wrong_workloads() -> Vec<Case> {
    let pod = |spec: &str| post(PODS, &format!(r#"{{"metadata":{{"name":"p"}},"spec":{spec}}}"#));
    let container =
        |rest: &str| pod(&format!(r#"{{"containers":[{{"name":"c","image":"i"{rest}}}]}}"#));
    let deployment =
        |spec: &str| post(DEPLOYMENTS, &format!(r#"{{"metadata":{{"name":"w"}},"spec":{spec}}}"#));
    let template = r#""template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;
    vec![
        pod(r#"{"containers":[]}"#).invalid(
            "Pod \"p\" is invalid: spec.containers: Required value",
            &["FieldValueRequired spec.containers"],
        ),
        pod(r#"{"containers":[{"name":"c"}]}"#).invalid(
            "Pod \"p\" is invalid: spec.containers[0].image: Required value",
            &["FieldValueRequired spec.containers[0].image"],
        ),
        pod(r#"{"containers":[{"image":"i"}]}"#).invalid(
            "Pod \"p\" is invalid: spec.containers[0].name: Required value",
            &["FieldValueRequired spec.containers[0].name"],
        ),
        pod(r#"{"containers":[{"name":"c","image":"i"},{"name":"c","image":"i"}]}"#).invalid(
            "Pod \"p\" is invalid: spec.containers[1].name: Duplicate value: \"c\"",
            &["FieldValueDuplicate spec.containers[1].name"],
        ),
        pod(r#"{"restartPolicy":"Sometimes","containers":[{"name":"c","image":"i"}]}"#).invalid(
            "Pod \"p\" is invalid: spec.restartPolicy: Unsupported value: \"Sometimes\": supported \
             values: \"Always\", \"OnFailure\", \"Never\"",
            &["FieldValueNotSupported spec.restartPolicy"],
        ),
        container(r#","imagePullPolicy":"Often""#).invalid(
            "Pod \"p\" is invalid: spec.containers[0].imagePullPolicy: Unsupported value: \
             \"Often\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            &["FieldValueNotSupported spec.containers[0].imagePullPolicy"],
        ),
        container(r#","ports":[{"containerPort":70000}]"#).invalid(
            "Pod \"p\" is invalid: spec.containers[0].ports[0].containerPort: Invalid value: \
             70000: must be between 1 and 65535, inclusive",
            &["FieldValueInvalid spec.containers[0].ports[0].containerPort"],
        ),
        container(r#","resources":{"requests":{"cpu":"2"},"limits":{"cpu":"1"}}"#).invalid(
            "Pod \"p\" is invalid: spec.containers[0].resources.requests: Invalid value: \"2\": \
             must be less than or equal to cpu limit of 1",
            &["FieldValueInvalid spec.containers[0].resources.requests"],
        ),
        container(r#","volumeMounts":[{"name":"v","mountPath":"/v"}]"#).invalid(
            "Pod \"p\" is invalid: spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            &["FieldValueNotFound spec.containers[0].volumeMounts[0].name"],
        ),
        container(r#","livenessProbe":{}"#).invalid(
            "Pod \"p\" is invalid: spec.containers[0].livenessProbe: Required value: must specify \
             a handler type",
            &["FieldValueRequired spec.containers[0].livenessProbe"],
        ),
        deployment(&format!("{{{template}}}")).invalid(
            "Deployment.apps \"w\" is invalid: [spec.selector: Required value, \
             spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not \
             match template `labels`]",
            &["FieldValueRequired spec.selector", "FieldValueInvalid spec.template.metadata.labels"],
        ),
        deployment(&format!(r#"{{"selector":{{"matchLabels":{{"a":"c"}}}},{template}}}"#)).invalid(
            "Deployment.apps \"w\" is invalid: spec.template.metadata.labels: Invalid value: \
             {\"a\":\"b\"}: `selector` does not match template `labels`",
            &["FieldValueInvalid spec.template.metadata.labels"],
        ),
        deployment(&format!(
            r#"{{"replicas":-1,"selector":{{"matchLabels":{{"a":"b"}}}},{template}}}"#
        ))
        .invalid(
            "Deployment.apps \"w\" is invalid: spec.replicas: Invalid value: -1: must be greater \
             than or equal to 0",
            &["FieldValueInvalid spec.replicas"],
        ),
        deployment(&format!(
            r#"{{"strategy":{{"rollingUpdate":{{"maxSurge":0,"maxUnavailable":0}}}},"selector":{{"matchLabels":{{"a":"b"}}}},{template}}}"#
        ))
        .invalid(
            "Deployment.apps \"w\" is invalid: spec.strategy.rollingUpdate.maxUnavailable: Invalid \
             value: 0: may not be 0 when `maxSurge` is 0",
            &["FieldValueInvalid spec.strategy.rollingUpdate.maxUnavailable"],
        ),
    ]
}

fn wrong_services() -> Vec<Case> {
    let service =
        |spec: &str| post(SERVICES, &format!(r#"{{"metadata":{{"name":"s"}},"spec":{spec}}}"#));
    vec![
        service("{}").invalid(
            "Service \"s\" is invalid: spec.ports: Required value",
            &["FieldValueRequired spec.ports"],
        ),
        service(r#"{"ports":[{"port":0}]}"#).invalid(
            "Service \"s\" is invalid: [spec.ports[0].port: Invalid value: 0: must be between 1 \
             and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 0: must be between 1 and \
             65535, inclusive]",
            &[],
        ),
        service(r#"{"type":"Public","ports":[{"port":80}]}"#).invalid(
            "Service \"s\" is invalid: spec.type: Unsupported value: \"Public\": supported values: \
             \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            &["FieldValueNotSupported spec.type"],
        ),
        service(r#"{"type":"NodePort","ports":[{"port":80,"nodePort":80}]}"#).invalid(
            "Service \"s\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is \
             not in the valid range. The range of valid ports is 30000-32767",
            &["FieldValueInvalid spec.ports[0].nodePort"],
        ),
        service(r#"{"clusterIP":"10.96.0.1","ports":[{"port":80}]}"#).invalid(
            "Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: failed to \
             allocate IP 10.96.0.1: provided IP is already allocated",
            &["FieldValueInvalid spec.clusterIPs"],
        ),
        service(r#"{"clusterIP":"192.168.1.1","ports":[{"port":80}]}"#).invalid(
            "Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"192.168.1.1\"]: failed \
             to allocate IP 192.168.1.1: the provided network does not match the current range",
            &["FieldValueInvalid spec.clusterIPs"],
        ),
        service(r#"{"ports":[{"port":80},{"port":81}]}"#).invalid(
            "Service \"s\" is invalid: [spec.ports[0].name: Required value, spec.ports[1].name: \
             Required value]",
            &["FieldValueRequired spec.ports[0].name", "FieldValueRequired spec.ports[1].name"],
        ),
    ]
}

fn wrong_queries() -> Vec<Case> {
    vec![
        get(&format!("{PODS}?labelSelector=a=b=c"))
            .bad("found '=', expected: ',' or 'end of string'"),
        get(&format!("{PODS}?labelSelector=a%20in%20b"))
            .bad("unable to parse requirement: found 'b' expected: '('"),
        get(&format!("{PODS}?labelSelector=Not%20a"))
            .bad("unable to parse requirement: found 'a', expected: in, notin, =, ==, !=, gt, lt…"),
        get(&format!("{PODS}?fieldSelector=spec.colour=red"))
            .bad("field label not supported: spec.colour"),
        get(&format!("{CONFIG_MAPS}?fieldSelector=data.a=b")).bad(
            "\"data.a\" is not a known field selector: only \"metadata.name\", \
             \"metadata.namespace\"",
        ),
        get(&format!("{PODS}?fieldSelector=spec.nodeName"))
            .bad("invalid selector: 'spec.nodeName'; can't understand 'spec.nodeName'"),
        get(&format!("{PODS}?limit=ten")).bad("strconv.ParseInt: parsing \"ten\": invalid syntax"),
        get(&format!("{PODS}?continue=nonsense"))
            .bad("invalid continue token: continue key is not valid: …"),
        get(&format!("{PODS}?resourceVersion=abc")).bad(
            "invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid \
             syntax",
        ),
        get(&format!("{PODS}?resourceVersionMatch=Exact")).invalid(
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: \
             resourceVersionMatch is forbidden unless resourceVersion is provided",
            &["FieldValueForbidden resourceVersionMatch"],
        ),
        get(&format!("{PODS}?resourceVersion=99999999999")).is(
            504,
            "Timeout",
            "Timeout: Too large resource version: 99999999999, current: …",
        ),
    ]
}

fn wrong_patches(cluster: &Cluster) -> Vec<Case> {
    cluster.kubectl(&["create", "configmap", "patched", "--from-literal=a=b"]);
    let path = format!("{CONFIG_MAPS}/patched");
    vec![
        patch(&path, MERGE, "{").bad("error decoding patch: …"),
        patch(&path, STRATEGIC, "nonsense").bad("error decoding patch: …"),
        patch(&path, JSON_PATCH, r#"[{"op":"test","path":"/data/a","value":"c"}]"#).is(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        ),
        patch(&path, JSON_PATCH, r#"[{"op":"remove","path":"/data/none"}]"#).is(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        ),
        patch(&path, MERGE, r#"{"metadata":{"name":"other"}}"#)
            .bad("the name of the object (other) does not match the name on the URL (patched)"),
        patch(&path, MERGE, r#"{"data":{"a":1}}"#).bad("…"),
        patch(&format!("{CONFIG_MAPS}/nothing"), MERGE, "{}").is(
            404,
            "NotFound",
            "configmaps \"nothing\" not found",
        ),
        patch(&path, MERGE, r#"{"metadata":{"resourceVersion":"1"}}"#).is(
            409,
            "Conflict",
            "Operation cannot be fulfilled on configmaps \"patched\": the object has been \
             modified; please apply your changes to the latest version and try again",
        ),
    ]
}

fn immutable(cluster: &Cluster) -> Vec<Case> {
    let manifest = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: fixed}
immutable: true
data: {a: b}
---
apiVersion: v1
kind: Secret
metadata: {name: typed}
type: example.com/one
stringData: {a: b}
---
apiVersion: v1
kind: Service
metadata: {name: addressed}
spec:
  ports: [{port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: selecting}
spec:
  replicas: 0
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b, c: d}}
    spec: {containers: [{name: c, image: skiff.local/none}]}
---
apiVersion: v1
kind: Pod
metadata: {name: running}
spec:
  nodeSelector: {no: where}
  containers: [{name: c, image: skiff.local/none}]
"#;
    cluster.apply(manifest).expect("what is fixed afterwards");
    vec![
        patch(&format!("{CONFIG_MAPS}/fixed"), MERGE, r#"{"data":{"a":"c"}}"#).invalid(
            "ConfigMap \"fixed\" is invalid: data: Forbidden: field is immutable when `immutable` \
             is set",
            &["FieldValueForbidden data"],
        ),
        patch(&format!("{CONFIG_MAPS}/fixed"), MERGE, r#"{"immutable":false}"#).invalid(
            "ConfigMap \"fixed\" is invalid: immutable: Forbidden: field is immutable when \
             `immutable` is set",
            &["FieldValueForbidden immutable"],
        ),
        patch(&format!("{SECRETS}/typed"), MERGE, r#"{"type":"example.com/two"}"#).invalid(
            "Secret \"typed\" is invalid: type: Invalid value: \"example.com/two\": field is \
             immutable",
            &["FieldValueInvalid type"],
        ),
        patch(&format!("{SERVICES}/addressed"), MERGE, r#"{"spec":{"clusterIP":"10.96.9.9"}}"#)
            .invalid(
                "Service \"addressed\" is invalid: spec.clusterIPs[0]: Invalid value: \
             [\"10.96.9.9\"]: may not change once set",
                &["FieldValueInvalid spec.clusterIPs[0]"],
            ),
        patch(
            &format!("{DEPLOYMENTS}/selecting"),
            MERGE,
            r#"{"spec":{"selector":{"matchLabels":{"c":"d"}}}}"#,
        )
        .invalid(
            "Deployment.apps \"selecting\" is invalid: spec.selector: Invalid value: \
             {\"matchLabels\":{\"a\":\"b\",\"c\":\"d\"}}: field is immutable",
            &["FieldValueInvalid spec.selector"],
        ),
        patch(&format!("{PODS}/running"), STRATEGIC, r#"{"spec":{"hostNetwork":true}}"#).invalid(
            "Pod \"running\" is invalid: spec: Forbidden: pod updates may not change fields other \
             than `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
             tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
             previously negative)\n…",
            &["FieldValueForbidden spec"],
        ),
        patch("/api/v1/namespaces/default", MERGE, r#"{"metadata":{"uid":"other"}}"#).is(
            409,
            "Conflict",
            "Operation cannot be fulfilled on namespaces \"default\": StorageError: invalid object, Code: 4, \
             Key: /registry/namespaces/default, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in \
             precondition: other, UID in object meta: …",
        ),
    ]
}

fn concurrency(cluster: &Cluster) -> Vec<Case> {
    cluster.kubectl(&["create", "configmap", "contended", "--from-literal=a=b"]);
    let path = format!("{CONFIG_MAPS}/contended");
    let stale = super::field(cluster, "configmap/contended", "{.metadata.resourceVersion}");
    cluster.kubectl(&["label", "configmap", "contended", "touched=yes"]);
    let conflict = "Operation cannot be fulfilled on configmaps \"contended\": the object has been \
                    modified; please apply your changes to the latest version and try again";
    let with = |version: &str| {
        json!({"metadata": {"name": "contended", "resourceVersion": version}}).to_string()
    };
    let delete = |preconditions: serde_json::Value| Case {
        method: "DELETE",
        ..post(&path, &json!({"preconditions": preconditions}).to_string())
    };
    vec![
        put(&path, &with(&stale)).is(409, "Conflict", conflict),
        put(&path, r#"{"metadata":{"name":"other"}}"#)
            .bad("the name of the object (other) does not match the name on the URL (contended)"),
        put(&format!("{CONFIG_MAPS}/absent"), r#"{"metadata":{"name":"absent"}}"#).is(
            404,
            "NotFound",
            "configmaps \"absent\" not found",
        ),
        post(CONFIG_MAPS, r#"{"metadata":{"name":"new","resourceVersion":"5"}}"#).is(
            400,
            "BadRequest",
            "resourceVersion should not be set on objects to be created",
        ),
        delete(json!({"resourceVersion": stale})).is(
            409,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on ConfigMap \"contended\": the ResourceVersion in \
                 the precondition ({stale}) does not match the ResourceVersion in record …"
            ),
        ),
        delete(json!({"uid": "other"})).is(
            409,
            "Conflict",
            "Operation cannot be fulfilled on ConfigMap \"contended\": the UID in the \
             precondition (other) does not match the UID in record …",
        ),
    ]
}

/// `Warn`, the default: stored, and told.
fn warnings(cluster: &Cluster) {
    let body = br#"{"metadata":{"name":"warned"},"date":{},"data":{"a":"b"},"data":{"a":"c"}}"#;
    let answer = request(cluster, "POST", CONFIG_MAPS, JSON, body);
    assert_eq!(answer.code, 201, "{answer:?}");
    assert_eq!(
        answer.warnings,
        [r#"299 - "unknown field \"date\"""#, r#"299 - "duplicate field \"data\"""#]
    );
    assert_eq!(answer.body["data"]["a"], "c", "the last one counts");
    let quiet = request(
        cluster,
        "POST",
        &format!("{CONFIG_MAPS}?fieldValidation=Ignore"),
        JSON,
        br#"{"metadata":{"name":"ignored"},"date":{}}"#,
    );
    assert_eq!((quiet.code, quiet.warnings.len()), (201, 0), "{quiet:?}");
}

fn sizes(cluster: &Cluster) {
    let body = |size: usize| {
        json!({"metadata": {"name": "large"}, "data": {"a": "x".repeat(size)}}).to_string()
    };
    let answer = request(cluster, "POST", CONFIG_MAPS, JSON, body(3 << 20).as_bytes());
    assert_eq!((answer.code, answer.reason()), (413, "RequestEntityTooLarge"), "{answer:?}");
    assert_eq!(answer.message(), "Request entity too large: limit is 3145728");
    let answer = request(cluster, "POST", CONFIG_MAPS, JSON, body((1 << 20) + 1).as_bytes());
    assert_eq!((answer.code, answer.reason()), (422, "Invalid"), "{}", answer.message());
    assert_eq!(
        answer.message(),
        "ConfigMap \"large\" is invalid: []: Too long: may not be more than 1048576 bytes"
    );
}

/// The same through kubectl, which words what it is told.
fn kubectl(cluster: &Cluster) {
    let refused = |manifest: &str| {
        format!("{:#}", cluster.apply(manifest).expect_err("kubectl apply must fail"))
    };
    let check = |manifest: &str, expected: &str| {
        let message = refused(manifest);
        assert!(message.contains(expected), "expected {expected:?} in:\n{message}");
    };
    check("kind: ConfigMap\n  apiVersion: v1\n", "error: error parsing STDIN");
    check(
        "---\n{apiVersion: v1, kind: Gadget, metadata: {name: a}}",
        "no matches for kind \"Gadget\" in version \"v1\"",
    );
    check(
        "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, date: {a: b}}",
        "Error from server (BadRequest): error when creating \"STDIN\": ConfigMap in version \"v1\" \
         cannot be handled as a ConfigMap: strict decoding error: unknown field \"date\"",
    );
    check(
        "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: Not_A_Name}}",
        "The ConfigMap \"Not_A_Name\" is invalid: metadata.name: Invalid value: \"Not_A_Name\": a \
         lowercase RFC 1123 subdomain must consist of",
    );
    check(
        "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: nowhere}}",
        "Error from server (NotFound): error when creating \"STDIN\": namespaces \"nowhere\" not found",
    );
    let missing = cluster.try_kubectl(&["get", "pod", "nothing"]).expect_err("there is none");
    assert!(
        format!("{missing:#}")
            .ends_with("Error from server (NotFound): pods \"nothing\" not found"),
        "{missing:#}"
    );
}
