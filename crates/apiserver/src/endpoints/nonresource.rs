//! Paths that name no resource: discovery, OpenAPI, health, version, metrics, token issuer.

use http::{Method, Response, StatusCode, request::Parts};
use meta::Status;
use serde_json::json;
use serve::Body;

use super::{health, respond};
use crate::{request::Query, server::Core};

/// Answers a request on a path that names no resource.
pub(crate) fn answer(
    core: &Core,
    parts: &Parts,
    query: &Query,
    path: &str,
) -> Result<Response<Body>, Status> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed());
    }
    for endpoint in ["/livez", "/readyz", "/healthz"] {
        if path == endpoint || path.strip_prefix(endpoint).is_some_and(|rest| rest.starts_with('/'))
        {
            return Ok(health::answer(endpoint, path, query, &core.checks(endpoint)));
        }
    }
    if let Some(response) = core.discovery.answer(path, &parts.headers) {
        return Ok(response);
    }
    if path == "/openapi" || path.starts_with("/openapi/") {
        let document = core.openapi.answer(path, query, &parts.headers);
        return Ok(document.unwrap_or_else(respond::no_such_page));
    }
    if let Some(what) = path.strip_prefix("/debug/api_priority_and_fairness/") {
        let details = query.get("includeRequestDetails").is_some_and(|text| !text.is_empty());
        let dump = core.flow.dump(what, details);
        return Ok(
            dump.map_or_else(respond::no_such_page, |text| respond::text(StatusCode::OK, text))
        );
    }
    match path {
        "/" => Ok(respond::json(StatusCode::OK, json!({"paths": paths(core)}).to_string())),
        "/version" | "/version/" => Ok(respond::json(StatusCode::OK, version(core))),
        "/metrics" => Ok(respond::bytes(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            core.all_metrics(),
        )),
        "/openid/v1/jwks" | "/openid/v1/jwks/" => Ok(respond::bytes(
            StatusCode::OK,
            "application/jwk-set+json",
            core.service_accounts.key_set().to_string(),
        )),
        "/.well-known/openid-configuration" => Ok(respond::json(StatusCode::OK, issuer(core))),
        _ => Ok(respond::no_such_page()),
    }
}

fn paths(core: &Core) -> Vec<String> {
    let fixed = [
        "/.well-known/openid-configuration",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ];
    let mut paths: Vec<String> = core.discovery.paths().chain(fixed).map(str::to_owned).collect();
    paths.sort();
    paths
}

fn version(core: &Core) -> String {
    let architecture = crate::metrics::platform();
    let version = json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": core.options.version, "gitCommit": "", "gitTreeState": "clean", "buildDate": "",
        "goVersion": "", "compiler": "rustc", "platform": format!("{}/{architecture}", std::env::consts::OS)
    });
    format!("{version:#}")
}

/// What relying parties need to verify tokens (OpenID Connect discovery).
fn issuer(core: &Core) -> String {
    let issuer = core.service_accounts.issuer();
    json!({
        "issuer": issuer, "jwks_uri": format!("https://{}/openid/v1/jwks", core.options.advertise),
        "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": core.service_accounts.algorithms()
    })
    .to_string()
}
