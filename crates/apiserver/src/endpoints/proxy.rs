//! `/proxy` of pods, services and nodes: any HTTP request, upgrades included, passed on to what the object
//! stands for.
//!
//! Owns what `[scheme:]name[:port]` means. Refuses to know what is on the other side.

use http::{Request, Response, StatusCode, header};
use meta::Status;
use serve::{Body, proxy::Proxy};

use super::{Context, kubelet, respond};
use crate::{
    egress::{Destination, resolve},
    server::Core,
};

/// `[scheme:]name[:port]`, as it stands in the path.
#[derive(Clone, Copy)]
struct Target<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

/// Answers a `/proxy` request.
pub(crate) async fn answer(
    core: &Core,
    context: &Context<'_>,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let rest = context.info.rest();
    if rest.is_empty() && matches!(request.method().as_str(), "GET" | "HEAD") {
        // Relative links of what is served there need the slash.
        return Ok(redirect(&request));
    }
    let target = split(context.info.name())?;
    let (namespace, Target { name, port, .. }) = (context.info.namespace(), target);
    let (to, scheme, proxy) = match context.info.resource() {
        "pods" => (resolve::pod(&core.lookup, namespace, name, port)?, target.scheme, &core.proxy),
        "services" => {
            let pick = |choices| core.pick(choices);
            let to = resolve::service(&core.lookup, pick, namespace, name, port)?;
            (to, target.scheme, &core.proxy)
        }
        "nodes" => node(core, &target)?,
        _ => return Err(Status::no_such_path()),
    };
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let decoded = context.info.path();
    let segments = decoded[..decoded.len() - rest.len()].matches('/').count();
    let path = format!("{}{query}", raw_rest(request.uri().path(), segments));
    let scheme = if scheme.is_empty() { "http" } else { scheme };
    kubelet::forward(core, proxy, request, kubelet::Target { to: &to, scheme, path }).await
}

fn redirect(request: &Request<Body>) -> Response<Body> {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = respond::text(StatusCode::MOVED_PERMANENTLY, "");
    if let Ok(location) = format!("{}/{query}", request.uri().path()).parse() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// The end of the path as it was sent, still encoded: what follows its first `segments` segments, none of
/// which can hold an encoded slash.
fn raw_rest(path: &str, segments: usize) -> &str {
    path.match_indices('/').nth(segments).map_or("/", |(at, _)| &path[at..])
}

fn split(id: &str) -> Result<Target<'_>, Status> {
    let invalid =
        || Status::bad_request(format!("invalid proxy target {id:?}: want [scheme:]name[:port]"));
    let parts: Vec<&str> = id.split(':').collect();
    let target = match parts.as_slice() {
        [name] => Target { scheme: "", name, port: "" },
        [name, port] => Target { scheme: "", name, port },
        [scheme, name, port] => Target { scheme, name, port },
        _ => return Err(invalid()),
    };
    if !matches!(target.scheme, "" | "http" | "https") || target.name.is_empty() {
        return Err(invalid());
    }
    Ok(target)
}

/// Only a kubelet's own port is shown who this API server is. It speaks TLS whatever was asked for; others are
/// plain unless said otherwise.
fn node<'a>(
    core: &'a Core,
    target: &Target<'a>,
) -> Result<(Destination, &'a str, &'a Proxy), Status> {
    let kubelet = resolve::kubelet(&core.lookup, target.name)?;
    let own = kubelet.authority.rsplit_once(':').map_or("", |(_, port)| port);
    if target.port.is_empty() || target.port == own {
        return Ok((kubelet, "https", &core.kubelets));
    }
    let port: u16 = target
        .port
        .parse()
        .map_err(|_| Status::bad_request(format!("invalid port {:?}", target.port)))?;
    Ok((resolve::node(&core.lookup, target.name, port)?, target.scheme, &core.proxy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_split() {
        let target = split("https:web:443").expect("whole");
        assert_eq!((target.scheme, target.name, target.port), ("https", "web", "443"));
        let target = split("web:http").expect("without scheme");
        assert_eq!((target.scheme, target.name, target.port), ("", "web", "http"));
        assert!(split("ftp:web:21").is_err() && split(":80").is_err() && split("a:b:c:d").is_err());
    }

    #[test]
    fn the_path_behind_stays_encoded() {
        let path = "/api/v1/namespaces/d/pods/web/proxy/a%2Fb/c";
        assert_eq!(raw_rest(path, 7), "/a%2Fb/c");
        assert_eq!(raw_rest("/api/v1/nodes/n/proxy", 5), "/");
    }
}
