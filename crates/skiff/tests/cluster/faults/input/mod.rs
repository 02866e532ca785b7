//! Bad input: Kubernetes' code, reason, field path and message, over plain HTTPS and through kubectl.

mod changes;
mod objects;
mod shapes;

use serde_json::json;
use testkit::Cluster;

use super::http::request;
use changes::{concurrency, immutable, wrong_patches};
use objects::{wrong_services, wrong_workloads};
use shapes::{malformed, wrong_envelopes, wrong_fields, wrong_names};

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
