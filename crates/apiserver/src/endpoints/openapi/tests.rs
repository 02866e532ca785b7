//! Documents are found, told apart by their tags, and served in each syntax.

use http::HeaderName;
use registry::Rows;

use super::*;

fn served() -> OpenApi {
    OpenApi::new(Rows::builtin().iter(), "v1.36.2")
}

fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("a value"))).collect()
}

fn get(openapi: &OpenApi, url: &str, headers: &HeaderMap) -> Response<Body> {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    openapi.answer(path, &Query::parse(query), headers).expect("served")
}

async fn body(response: Response<Body>) -> Bytes {
    response.into_body().read(1 << 24).await.expect("body")
}

#[tokio::test]
async fn the_index_leads_to_documents() {
    let openapi = served();
    let none = HeaderMap::new();
    let index: Value = serde_json::from_slice(&openapi.index).expect("JSON");
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a URL");
    let response = get(&openapi, url, &none);
    assert_eq!(response.headers()[header::CACHE_CONTROL], "public, immutable");
    let tag = response.headers()[header::ETAG].to_str().expect("text").to_owned();
    let document: Value = serde_json::from_slice(&body(response).await).expect("JSON");
    assert!(document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    let again = get(&openapi, url, &headers(&[(header::IF_NONE_MATCH, &tag)]));
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let moved = get(&openapi, "/openapi/v3/apis/apps/v1?hash=old", &none);
    assert_eq!(moved.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(moved.headers()[header::LOCATION], url);
    assert!(openapi.answer("/openapi/v3/apis/none/v1", &Query::default(), &none).is_none());
}

#[tokio::test]
async fn the_syntax_liked_best_is_answered() {
    let openapi = served();
    let check = |accept: &str, url: &str| {
        let response = get(&openapi, url, &headers(&[(header::ACCEPT, accept)]));
        let media = response.headers().get(header::CONTENT_TYPE).cloned();
        (response.status().as_u16(), media.and_then(|m| m.to_str().ok().map(str::to_owned)))
    };
    let v3 = "/openapi/v3/apis/apps/v1";
    assert_eq!(check("application/json", v3), (200, Some("application/json".into())));
    assert_eq!(
        check(
            "application/json;q=0.5, application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
            v3
        )
        .1,
        Some(V3_PROTOBUF.into())
    );
    assert_eq!(check("text/html", v3).0, 406);
    assert_eq!(check("text/html, */*;q=0.1", v3).1, Some("application/json".into()));
    let kubectl = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    assert_eq!(check(kubectl, "/openapi/v2"), (200, Some(V2_PROTOBUF.into())));
}

#[tokio::test]
async fn version_two_holds_everything_compressed_or_not() {
    let openapi = served();
    let plain = body(get(&openapi, "/openapi/v2", &HeaderMap::new())).await;
    let packed = get(&openapi, "/openapi/v2", &headers(&[(header::ACCEPT_ENCODING, "gzip")]));
    assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip");
    assert!(body(packed).await.len() < plain.len() / 5);
    let document: Value = serde_json::from_slice(&plain).expect("JSON");
    assert_eq!(document["info"]["version"], "v1.36.2");
    let definitions = &document["definitions"];
    let spec = &definitions["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(spec["$ref"], "#/definitions/io.k8s.api.apps.v1.DeploymentStrategy");
    assert_eq!(definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["type"], "string");
    let options = &definitions["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"];
    assert!(options["x-kubernetes-group-version-kind"].as_array().expect("kinds").len() > 15);
    let post = &document["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"];
    assert_eq!(post["parameters"][0]["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod");
    assert_eq!(post["consumes"], json!(["*/*"]));
    let text = String::from_utf8_lossy(&plain);
    assert!(!text.contains("#/components/"), "no reference of version 3 is left");
}
