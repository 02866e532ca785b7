//! Corners of writes: names that are taken, preconditions, dry runs, deletions, warnings, and the words of
//! every refusal.

use crate::support::{Answer, Client, Cluster};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MERGE: &[(&str, &str)] = &[("content-type", "application/merge-patch+json")];

fn map(metadata: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
}

async fn delete(admin: &Client<'_>, path: &str, options: Value) -> Answer {
    let media = [("content-type", "application/json")];
    admin.call(Method::DELETE, path, &media, options.to_string()).await
}

fn refused(answer: &Answer, code: u16, message: &str) {
    assert_eq!(
        (answer.code.as_u16(), answer.message().as_str()),
        (code, message),
        "{}",
        answer.text()
    );
}

fn warnings(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("warning").iter().filter_map(|value| value.to_str().ok()).collect()
}

#[tokio::test]
async fn names_that_are_taken() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let held = map(json!({"name": "a", "finalizers": ["example.com/f"]}));
    assert_eq!(admin.post(MAPS, &held).await.code, StatusCode::CREATED);
    refused(&admin.post(MAPS, &held).await, 409, "configmaps \"a\" already exists");
    let dry = admin.post(&format!("{MAPS}?dryRun=All"), &held).await;
    refused(&dry, 409, "configmaps \"a\" already exists");
    let both = map(json!({"name": "a", "generateName": "a-"}));
    let answer = admin.post(MAPS, &both).await;
    refused(
        &answer,
        409,
        "configmaps \"a\" already exists, the server was not able to generate a unique name for the object",
    );
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(admin.delete(&format!("{MAPS}/a")).await.code, StatusCode::OK);
    refused(
        &admin.post(MAPS, &held).await,
        409,
        "object is being deleted: configmaps \"a\" already exists",
    );
    let generated = admin.post(MAPS, &map(json!({"generateName": "b-"}))).await.json();
    let name = generated["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("b-") && name.len() == 7, "{name}");
}

#[tokio::test]
async fn updates_of_what_is_not_there_or_is_another() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let one = format!("{MAPS}/a");
    refused(&admin.put(&one, &map(json!({"name": "a"}))).await, 404, "configmaps \"a\" not found");
    let lease =
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}});
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    assert_eq!(
        admin.put(path, &lease).await.code,
        StatusCode::CREATED,
        "kinds that an update creates"
    );
    admin.post(MAPS, &map(json!({"name": "a"}))).await;
    let check = async |metadata: Value, code: u16, message: &str| {
        refused(&admin.put(&one, &map(metadata)).await, code, message);
    };
    check(
        json!({"name": "b"}),
        400,
        "the name of the object (b) does not match the name on the URL (a)",
    )
    .await;
    check(
        json!({}),
        400,
        "the name of the object (a based on URL) was undeterminable: name must be provided",
    )
    .await;
    check(
        json!({"name": "a", "namespace": "other"}),
        400,
        "the namespace of the provided object does not match the namespace sent on the request",
    )
    .await;
    check(json!({"name": "a", "resourceVersion": "1"}), 409, "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again").await;
    let uid = admin.get(&one).await.json()["metadata"]["uid"].as_str().expect("a uid").to_owned();
    check(json!({"name": "a", "uid": "u"}), 409, &format!("Operation cannot be fulfilled on configmaps \"a\": StorageError: invalid object, Code: 4, Key: /registry/configmaps/default/a, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: u, UID in object meta: {uid}")).await;
    let versioned = admin.post(MAPS, &map(json!({"name": "c", "resourceVersion": "1"}))).await;
    refused(&versioned, 400, "resourceVersion should not be set on objects to be created");
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let one = format!("{MAPS}/a");
    admin.post(MAPS, &map(json!({"name": "a"}))).await;
    let before = admin.get(MAPS).await.json()["items"].clone();
    let made =
        admin.post(&format!("{MAPS}?dryRun=All"), &map(json!({"generateName": "x-"}))).await.json();
    assert!(
        made["metadata"]["uid"].is_string() && made["metadata"]["resourceVersion"].is_null(),
        "{made}"
    );
    let changed = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    assert_eq!(admin.put(&format!("{one}?dryRun=All"), &changed).await.json()["data"]["k"], "v");
    let patch = admin
        .call(Method::PATCH, &format!("{one}?dryRun=All"), MERGE, r#"{"data":{"k":"w"}}"#)
        .await;
    assert_eq!(patch.json()["data"]["k"], "w");
    assert_eq!(admin.delete(&format!("{one}?dryRun=All")).await.json()["status"], "Success");
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"]});
    assert_eq!(delete(&admin, &one, options.clone()).await.code, StatusCode::OK);
    assert_eq!(delete(&admin, MAPS, options).await.code, StatusCode::OK);
    assert_eq!(admin.get(MAPS).await.json()["items"], before);
    let bad = admin.post(&format!("{MAPS}?dryRun=Some"), &changed).await;
    refused(
        &bad,
        422,
        "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\"",
    );
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "none"}});
    let none =
        admin.post("/api/v1/namespaces/default/pods/none/eviction?dryRun=All", &eviction).await;
    refused(&none, 404, "pods \"none\" not found");
}

#[tokio::test]
async fn deletions_heed_their_options() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let one = format!("{MAPS}/a");
    let made = admin.post(MAPS, &map(json!({"name": "a"}))).await.json();
    let (uid, version) =
        (made["metadata"]["uid"].clone(), made["metadata"]["resourceVersion"].clone());
    let uid = uid.as_str().expect("a uid");
    let wrong = delete(&admin, &one, json!({"preconditions": {"uid": "u"}})).await;
    refused(
        &wrong,
        409,
        &format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (u) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        ),
    );
    let wrong = delete(&admin, &one, json!({"preconditions": {"resourceVersion": "1"}})).await;
    refused(
        &wrong,
        409,
        &format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the ResourceVersion in the precondition (1) does not match the ResourceVersion in record ({}). The object might have been modified",
            version.as_str().expect("a version")
        ),
    );
    let bad =
        delete(&admin, &one, json!({"propagationPolicy": "Sideways", "orphanDependents": true}))
            .await;
    refused(
        &bad,
        422,
        "DeleteOptions.meta.k8s.io \"\" is invalid: [propagationPolicy: Invalid value: \"Sideways\": orphanDependents and deletionPropagation cannot be both set, propagationPolicy: Unsupported value: \"Sideways\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"]",
    );
    let foreground = delete(&admin, &one, json!({"propagationPolicy": "Foreground"})).await.json();
    assert_eq!(foreground["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    assert_eq!(foreground["metadata"]["deletionGracePeriodSeconds"], 0);
    // The garbage collector's work, done by hand.
    admin.call(Method::PATCH, &one, MERGE, r#"{"metadata":{"finalizers":null}}"#).await;
    refused(&admin.get(&one).await, 404, "configmaps \"a\" not found");
    admin.post(MAPS, &map(json!({"name": "a"}))).await;
    let orphan = admin.delete(&format!("{one}?propagationPolicy=Orphan")).await.json();
    assert_eq!(orphan["metadata"]["finalizers"], json!(["orphan"]));
    let more = admin
        .call(
            Method::PATCH,
            &one,
            MERGE,
            r#"{"metadata":{"finalizers":["orphan","example.com/x"]}}"#,
        )
        .await;
    refused(
        &more,
        422,
        "ConfigMap \"a\" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"example.com/x\"}",
    );
    admin.call(Method::PATCH, &one, MERGE, r#"{"metadata":{"finalizers":[]}}"#).await;
    admin.post(MAPS, &map(json!({"name": "a"}))).await;
    // Off unless asked for when the server starts, as upstream: then it is an ordinary deletion.
    let unsafe_deletion = format!("{one}?ignoreStoreReadErrorWithClusterBreakingPotential=true");
    assert_eq!(admin.delete(&unsafe_deletion).await.json()["status"], "Success");
}

#[tokio::test]
async fn a_collection_is_deleted_as_far_as_it_is_selected() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for (name, tier) in [("a", "x"), ("b", "x"), ("c", "y")] {
        admin.post(MAPS, &map(json!({"name": name, "labels": {"tier": tier}}))).await;
    }
    let gone = admin
        .delete(&format!("{MAPS}?labelSelector=tier%3Dx&fieldSelector=metadata.name!%3Db"))
        .await;
    assert_eq!(gone.json()["items"].as_array().map(Vec::len), Some(1), "{}", gone.text());
    let kept = admin.get(&format!("{MAPS}?labelSelector=tier")).await.json();
    let names: Vec<&Value> =
        kept["items"].as_array().expect("items").iter().map(|i| &i["metadata"]["name"]).collect();
    assert_eq!(names, ["b", "c"]);
    let bad = admin.delete(&format!("{MAPS}?sendInitialEvents=true")).await;
    refused(
        &bad,
        422,
        "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
    );
}

#[tokio::test]
async fn clients_are_warned() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let endpoints = admin.get("/api/v1/namespaces/default/endpoints").await;
    assert_eq!(
        warnings(&endpoints),
        ["299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\""]
    );
    let statuses = admin.get("/api/v1/componentstatuses").await;
    assert_eq!(warnings(&statuses), ["299 - \"v1 ComponentStatus is deprecated in v1.19+\""]);
    assert!(warnings(&cluster.user("jane", &[]).get("/api/v1/endpoints").await).is_empty());
    let secret = json!({"metadata": {"name": "t"}, "type": "kubernetes.io/tls", "stringData": {"tls.crt": "", "tls.key": ""}});
    let made = admin.post("/api/v1/namespaces/default/secrets", &secret).await;
    let why = "299 - \"tls: failed to find any PEM data in certificate input\"";
    assert_eq!((made.code, warnings(&made)), (StatusCode::CREATED, vec![why]));
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"});
    let owned = map(json!({"name": "a", "ownerReferences": [owner, owner]}));
    let made = admin.post(MAPS, &owned).await;
    assert_eq!(
        warnings(&made),
        [
            "299 - \".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: [u]\""
        ]
    );
    assert_eq!(made.json()["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(1));
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b","nmae":"x"},"data":{"k":"v","k":"w"},"dta":{}}"#;
    let media = [("content-type", "application/json")];
    let warned = admin.call(Method::POST, &format!("{MAPS}?dryRun=All"), &media, body).await;
    assert_eq!(warned.code, StatusCode::CREATED, "{}", warned.text());
    let texts = [
        "duplicate field \\\"data.k\\\"",
        "unknown field \\\"dta\\\"",
        "unknown field \\\"metadata.nmae\\\"",
    ];
    let mut seen = warnings(&warned);
    seen.sort_unstable();
    assert_eq!(seen, texts.map(|text| format!("299 - \"{text}\"")));
    let ignored = admin
        .call(Method::POST, &format!("{MAPS}?dryRun=All&fieldValidation=Ignore"), &media, body)
        .await;
    assert_eq!((ignored.code, warnings(&ignored).len()), (StatusCode::CREATED, 0));
    let strict =
        admin.call(Method::POST, &format!("{MAPS}?fieldValidation=Strict"), &media, body).await;
    assert_eq!(strict.code, StatusCode::BAD_REQUEST);
    let message = strict.message();
    assert!(
        message.contains("strict decoding error: ")
            && message.contains("duplicate field \"data.k\""),
        "{message}"
    );
}

#[tokio::test]
async fn metadata_is_checked() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let check = async |metadata: Value, errors: &str| {
        let name = metadata["name"].as_str().unwrap_or_default().to_owned();
        let answer = admin.post(MAPS, &map(metadata)).await;
        refused(&answer, 422, &format!("ConfigMap {name:?} is invalid: {errors}"));
    };
    check(json!({}), "metadata.name: Required value: name or generateName is required").await;
    check(json!({"name": "A"}), "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')").await;
    check(
        json!({"name": "a", "labels": {"k": "v".repeat(64)}}),
        &format!(
            "metadata.labels: Invalid value: \"{}\": must be no more than 63 bytes",
            "v".repeat(64)
        ),
    )
    .await;
    check(
        json!({"name": "a", "annotations": {"k": "v".repeat(256 << 10)}}),
        "metadata.annotations: Too long: may not be more than 262144 bytes",
    )
    .await;
    check(json!({"name": "a", "finalizers": ["x"]}), "metadata.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified").await;
    let owner = |controller: bool| json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "", "controller": controller});
    check(
        json!({"name": "a", "ownerReferences": [owner(false)]}),
        "metadata.ownerReferences[0].uid: Invalid value: \"\": must not be empty",
    )
    .await;
}

#[tokio::test]
async fn paths_that_lead_nowhere() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let nowhere = "the server could not find the requested resource";
    for path in [
        "/api/v1/namespaces/default/widgets",
        "/api/v1/namespaces/default/nodes",
        "/apis/apps/v1/widgets/a",
        "/api/v1/namespaces/default/configmaps/a/status",
        "/api/v1/watch/componentstatuses",
    ] {
        refused(&admin.get(path).await, 404, nowhere);
        assert_eq!(admin.get(path).await.json()["details"], json!({}), "{path}");
    }
    for path in [
        "/nothing",
        "/apis/none/v1/widgets",
        "/apis/apps/v9/deployments",
        "/openapi/v3/apis/none/v1",
    ] {
        let answer = admin.get(path).await;
        assert_eq!(
            (answer.code.as_u16(), answer.text().as_str()),
            (404, "404 page not found\n"),
            "{path}"
        );
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    }
    refused(
        &admin.get(&format!("{MAPS}?timeout=soon")).await,
        400,
        "invalid timeout specified in the request URL - time: invalid duration \"soon\"",
    );
    let method = "the server does not allow this method on the requested resource";
    refused(&admin.post("/api/v1/configmaps", &json!({})).await, 405, method);
    refused(&admin.post(&format!("{MAPS}/a"), &json!({})).await, 405, method);
    refused(&admin.put(MAPS, &json!({})).await, 405, method);
    refused(&admin.get("/api/v1/namespaces/default/bindings").await, 405, method);
    refused(
        &admin.get("/api/v1/componentstatuses?watch=true").await,
        405,
        "watch is not supported on resources of kind \"componentstatuses\"",
    );
    refused(
        &admin.get("/api/v1/watch").await,
        400,
        "unable to determine kind and namespace from url, /api/v1/watch",
    );
}
