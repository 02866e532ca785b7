//! The OpenAPI documents hold what kubectl looks for.

use serde_json::Value;

use super::*;

fn verbs(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn deployments() -> Value {
    let kind = |group: &str, kind: &str| (group.to_owned(), "v1".to_owned(), kind.to_owned());
    let resource = Resource {
        name: "deployments".to_owned(),
        kind: "Deployment".to_owned(),
        namespaced: true,
        verbs: verbs("create delete deletecollection get list patch update watch"),
        returned: false,
        subresources: vec![
            Subresource {
                name: "status".to_owned(),
                kind: kind("apps", "Deployment"),
                verbs: verbs("get patch update"),
            },
            Subresource {
                name: "scale".to_owned(),
                kind: kind("autoscaling", "Scale"),
                verbs: verbs("get patch update"),
            },
        ],
    };
    document("apps", "v1", &[resource])
}

#[test]
fn describes_types() {
    let document = deployments();
    let schemas = &document["components"]["schemas"];
    let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"];
    assert_eq!(spec["required"], json!(["selector", "template"]));
    assert_eq!(spec["properties"]["replicas"]["type"], "integer");
    assert!(
        spec["properties"]["replicas"]["description"]
            .as_str()
            .is_some_and(|text| text.contains("desired pods"))
    );
    assert_eq!(spec["properties"]["strategy"]["x-kubernetes-patch-strategy"], "retainKeys");
    assert_eq!(
        spec["properties"]["template"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.api.core.v1.PodTemplateSpec"
    );
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(
        schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
    );
    assert!(schemas["io.k8s.api.autoscaling.v1.Scale"].is_object());
    assert!(schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["oneOf"].is_array());
}

#[test]
fn every_reference_resolves() {
    let document = deployments();
    let text = document.to_string();
    for target in text.split("\"#/components/schemas/").skip(1) {
        let name = target.split('"').next().expect("a name");
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
}

#[test]
fn lists_what_patches_take() {
    let document = deployments();
    let one = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    assert_eq!(one["patch"]["x-kubernetes-action"], "patch");
    assert_eq!(one["patch"]["operationId"], "patchAppsV1NamespacedDeployment");
    let parameters = one["patch"]["parameters"].as_array().expect("parameters");
    for wanted in ["fieldValidation", "dryRun"] {
        assert!(parameters.iter().any(|p| p["name"] == wanted && p["in"] == "query"));
    }
    let scale =
        &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
    assert!(document["paths"]["/apis/apps/v1/deployments"]["get"].is_object());
}

#[test]
fn nearly_everything_is_described() {
    let document = deployments();
    let (mut with, mut without) = (0, 0);
    for schema in document["components"]["schemas"].as_object().expect("schemas").values() {
        for property in schema["properties"].as_object().into_iter().flatten() {
            if property.1["description"].is_string() { with += 1 } else { without += 1 }
        }
    }
    assert!(with > 50 * without, "{with} described, {without} not");
}
