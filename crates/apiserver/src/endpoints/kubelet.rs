//! What a pod's kubelet answers: logs, exec, attach, port-forward. Requests are passed on to the kubelet's HTTPS
//! API, and after an upgrade the bytes are copied: kubelets speak SPDY and WebSocket themselves.
//!
//! Owns where the kubelet is and how its API spells the request. Refuses to know the streaming protocols.

use http::{Request, Response, StatusCode, Uri};
use meta::{FieldError, GroupResource, Status};
use serde_json::Value;
use serve::{Body, proxy::Proxy};

use super::Context;
use crate::{
    authn,
    authz::node::Lookup,
    egress::{Destination, resolve},
    request::query::percent_encode,
    server::Core,
};

/// The most of a kubelet's error text that is read, in bytes.
const MOST_ERROR: usize = 64 * 1024;

/// Whether this subresource of pods is answered by a kubelet.
pub(crate) fn handles(subresource: &str) -> bool {
    matches!(subresource, "exec" | "attach" | "portforward" | "log")
}

/// Answers a pod's streaming subresource.
pub(crate) async fn answer(
    core: &Core,
    context: &Context<'_>,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let (namespace, name) = (context.info.namespace(), context.info.name());
    let pod = core
        .lookup
        .object("", "pods", namespace, name)
        .ok_or_else(|| Status::not_found(&GroupResource::new("", "pods"), name))?;
    let subresource = context.info.subresource();
    let mut query = Parameters::default();
    let path = match subresource {
        "portforward" => {
            for port in context.query.all("ports").flat_map(|ports| ports.split(',')) {
                query.add("port", port);
            }
            format!("/portForward/{namespace}/{name}")
        }
        _ => {
            let container = container(&pod, context.query.get("container").unwrap_or_default())?;
            match subresource {
                "log" => log_parameters(context, &mut query)?,
                _ => exec_parameters(context, &mut query),
            }
            let verb = if subresource == "log" { "containerLogs" } else { subresource };
            format!("/{verb}/{namespace}/{name}/{container}")
        }
    };
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        if subresource == "log" {
            let mut empty = Response::new(Body::empty());
            *empty.status_mut() = StatusCode::NO_CONTENT;
            return Ok(empty);
        }
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let to = resolve::kubelet(&core.lookup, node)?;
    let target = Target { to: &to, scheme: "https", path: format!("{path}{query}") };
    let response = forward(core, &core.kubelets, request, target).await?;
    if subresource == "log" && response.status().as_u16() >= 400 {
        return Err(refusal(response, name).await);
    }
    Ok(response)
}

/// What a request is passed on to.
pub(crate) struct Target<'a> {
    /// Where it is.
    pub(crate) to: &'a Destination,
    /// `http` or `https`.
    pub(crate) scheme: &'a str,
    /// Path and query.
    pub(crate) path: String,
}

/// Passes a request on without the client's credentials.
pub(crate) async fn forward(
    core: &Core,
    proxy: &Proxy,
    mut request: Request<Body>,
    target: Target<'_>,
) -> Result<Response<Body>, Status> {
    authn::strip_credentials(request.headers_mut());
    let impersonation: Vec<_> = request
        .headers()
        .keys()
        .filter(|name| name.as_str().starts_with("impersonate-"))
        .cloned()
        .collect();
    for name in impersonation {
        request.headers_mut().remove(name);
    }
    let Target { to, scheme, path } = target;
    let target = format!("{scheme}://{}{path}", to.authority);
    let uri: Uri = target
        .parse()
        .map_err(|_| Status::bad_request(format!("invalid proxy target {target:?}")))?;
    proxy.forward(request, &uri, core.egress.connect(to)).await.map_err(|error| {
        tracing::debug!(%error, target, "proxied request failed");
        Status::internal(format!("error dialing backend: {error}"))
    })
}

async fn refusal(response: Response<Body>, pod: &str) -> Status {
    let code = response.status().as_u16();
    let text = response.into_body().read(MOST_ERROR).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    match code {
        400 => Status::bad_request(text),
        404 => Status::new(
            404,
            "NotFound",
            format!("the server could not find the requested resource ( pods/log {pod})"),
        ),
        401 | 403 => Status::internal(format!("the kubelet refused the API server: {text}")),
        _ => Status::new(
            code,
            "InternalError",
            format!(
                "an error on the server ({text:?}) has prevented the request from succeeding ( pods/log {pod})"
            ),
        ),
    }
}

/// The container asked for, or the only one there is.
fn container(pod: &Value, asked: &str) -> Result<String, Status> {
    let names = |field: &str| -> Vec<&str> {
        let containers = pod["spec"][field].as_array().into_iter().flatten();
        containers.filter_map(|container| container["name"].as_str()).collect()
    };
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let (main, init) = (names("containers"), names("initContainers"));
    if !asked.is_empty() {
        let known = main.contains(&asked)
            || init.contains(&asked)
            || names("ephemeralContainers").contains(&asked);
        if known {
            return Ok(asked.to_owned());
        }
        return Err(Status::bad_request(format!(
            "container {asked} is not valid for pod {pod_name}"
        )));
    }
    match main.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(Status::bad_request(format!(
            "a container name must be specified for pod {pod_name}"
        ))),
        _ => {
            let mut text = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                main.join(" ")
            );
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(text))
        }
    }
}

fn exec_parameters(context: &Context<'_>, query: &mut Parameters) {
    for (asked, kubelet) in
        [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
    {
        if context.query.flag(asked) {
            query.add(kubelet, "1");
        }
    }
    for word in context.query.all("command") {
        query.add("command", word);
    }
}

fn log_parameters(context: &Context<'_>, query: &mut Parameters) -> Result<(), Status> {
    let mut errors = Vec::new();
    for flag in ["follow", "previous", "timestamps"] {
        if context.query.flag(flag) {
            query.add(flag, "true");
        }
    }
    for (field, least, detail) in [
        ("sinceSeconds", 1, "must be greater than 0"),
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
    ] {
        let Some(text) = context.query.get(field).filter(|text| !text.is_empty()) else { continue };
        match text.parse::<i64>() {
            Ok(number) if number >= least => query.add(field, text),
            Ok(number) => errors.push(FieldError::invalid(field, number, detail)),
            Err(_) => return Err(Status::bad_request(format!("{field}: invalid number {text:?}"))),
        }
    }
    if let Some(time) = context.query.get("sinceTime").filter(|time| !time.is_empty()) {
        if meta::time::parse(time).is_none() {
            return Err(Status::bad_request(format!("sinceTime: invalid time {time:?}")));
        }
        if context.query.get("sinceSeconds").is_some() {
            errors.push(FieldError::forbidden(
                "",
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        query.add("sinceTime", time);
    }
    if let Some(stream) = context.query.get("stream").filter(|stream| !stream.is_empty()) {
        query.add("stream", stream);
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(("", "PodLogOptions"), "", errors)) }
}

/// A query string being put together.
#[derive(Default)]
struct Parameters(String);

impl Parameters {
    fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        self.0.push_str(&percent_encode(value));
    }
}

impl std::fmt::Display for Parameters {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_may_be_left_out_if_there_is_one() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&one, "").expect("only one"), "a");
        assert_eq!(container(&one, "i").expect("init"), "i");
        assert_eq!(
            container(&one, "x").expect_err("unknown").message,
            "container x is not valid for pod p"
        );
        let two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(
            container(&two, "").expect_err("ambiguous").message,
            "a container name must be specified for pod p, choose one of: [a b]"
        );
    }

    #[test]
    fn commands_are_encoded() {
        let mut query = Parameters::default();
        query.add("command", "a b&c");
        query.add("input", "1");
        assert_eq!(query.to_string(), "?command=a%20b%26c&input=1");
    }
}
