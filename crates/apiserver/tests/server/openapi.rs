//! The OpenAPI documents that are served promise what the reference's do, path by path and type by type.

use std::collections::BTreeMap;

use crate::support::Cluster;
use http::StatusCode;

/// Digests of the reference's documents.
const REFERENCE: &str = include_str!("openapi.tsv");
/// What differs, and why.
const DIFFERENCES: &str = include_str!("openapi-differences.tsv");

fn table(text: &'static str) -> BTreeMap<&'static str, &'static str> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_once('\t').expect("two cells")).collect()
}

#[tokio::test]
async fn documents_promise_what_the_reference_promises() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let index = admin.get("/openapi/v3").await.json();
    let mut ours = BTreeMap::new();
    for (name, entry) in index["paths"].as_object().expect("paths") {
        let url = entry["serverRelativeURL"].as_str().expect("a URL");
        let answer = admin.get(url).await;
        assert_eq!(answer.code, StatusCode::OK, "{url}");
        for (key, digest) in schema::openapi::outline(name, &answer.json()) {
            let known = ours.insert(key.clone(), digest.clone());
            assert!(known.is_none_or(|known| known == digest), "two forms of {key}");
        }
    }
    let (reference, mut allowed) = (table(REFERENCE), table(DIFFERENCES));
    assert!(reference.len() > 900, "{}", reference.len());
    let mut surprises = Vec::new();
    for (key, digest) in &reference {
        if ours.remove(*key).as_deref() != Some(*digest) && allowed.remove(key).is_none() {
            surprises.push(format!("{key} is missing or differs"));
        }
    }
    surprises.extend(
        ours.into_keys()
            .filter(|key| allowed.remove(key.as_str()).is_none())
            .map(|key| format!("{key} is not the reference's")),
    );
    surprises.extend(allowed.into_keys().map(|key| format!("{key} does not differ any more")));
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

/// `kubectl explain` shows the text of every field of every kind that is served.
#[tokio::test]
async fn every_field_of_every_kind_is_explained() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let index = admin.get("/openapi/v3").await.json();
    let (mut silent, mut fields) = (Vec::new(), 0);
    for entry in index["paths"].as_object().expect("paths").values() {
        let document = admin.get(entry["serverRelativeURL"].as_str().expect("a URL")).await.json();
        for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
            for (field, property) in schema["properties"].as_object().into_iter().flatten() {
                fields += 1;
                if property["description"].as_str().is_none_or(str::is_empty) {
                    silent.push(format!("{name}.{field}"));
                }
            }
        }
    }
    let expected: Vec<&str> =
        SILENT.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    silent.retain(|field| {
        !expected.iter().any(|known| field.starts_with(known.trim_end_matches('*')))
    });
    assert!(fields > 5000, "{fields}");
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}

/// Fields that have no text upstream either.
const SILENT: &str = "
    io.k8s.api.networking.v1.IngressRule.http
    io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.ExternalDocumentation.*
    io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.*
";
