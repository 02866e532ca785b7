//! `/proxy` of pods, services and nodes: any HTTP request, upgrades included, passed on to what the object
//! stands for.
//!
//! Owns how `[scheme:]name[:port]` becomes an address. Refuses to know what is on the other side.

use http::{Request, Response, StatusCode, header};
use meta::{GroupResource, Status};
use serde_json::Value;
use serve::{Body, proxy::Proxy};

use super::{Context, kubelet, respond};
use crate::{authz::node::Lookup, server::Core};

/// `[scheme:]name[:port]`, as it stands in the path.
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
    let (base, proxy) = match context.info.resource() {
        "pods" => (pod(core, context.info.namespace(), &target)?, &core.proxy),
        "services" => (service(core, context.info.namespace(), &target)?, &core.proxy),
        "nodes" => node(core, &target)?,
        _ => return Err(Status::no_such_path()),
    };
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let decoded = context.info.path();
    let segments = decoded[..decoded.len() - rest.len()].matches('/').count();
    let path = raw_rest(request.uri().path(), segments);
    let target = format!("{base}{path}{query}");
    kubelet::forward(proxy, request, &target).await
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

fn base(scheme: &str, host: &str, port: u64) -> String {
    let scheme = if scheme.is_empty() { "http" } else { scheme };
    if host.contains(':') {
        format!("{scheme}://[{host}]:{port}")
    } else {
        format!("{scheme}://{host}:{port}")
    }
}

fn pod(core: &Core, namespace: &str, target: &Target<'_>) -> Result<String, Status> {
    let gone = || Status::not_found(&GroupResource::new("", "pods"), target.name);
    let pod = core.lookup.object("", "pods", namespace, target.name).ok_or_else(gone)?;
    let address = pod["status"]["podIP"].as_str().filter(|address| !address.is_empty());
    let address = address.ok_or_else(|| Status::bad_request("address not allowed"))?;
    check_address(address)?;
    let port = match target.port {
        "" => first_port(&pod),
        port => port.parse().map_err(|_| Status::bad_request(format!("invalid port {port:?}")))?,
    };
    Ok(base(target.scheme, address, port))
}

/// The first port any container declares, 80 if none does.
fn first_port(pod: &Value) -> u64 {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports =
        containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    ports.find_map(|port| port["containerPort"].as_u64()).unwrap_or(80)
}

/// A pod's address is whatever its kubelet reported; it must not turn the API server against its own machine.
fn check_address(address: &str) -> Result<(), Status> {
    let refused = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(ip)) => {
            ip.is_loopback() || ip.is_link_local() || ip.is_unspecified()
        }
        Ok(std::net::IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unspecified() || (ip.segments()[0] & 0xffc0) == 0xfe80
        }
        Err(_) => true,
    };
    if refused { Err(Status::bad_request("address not allowed")) } else { Ok(()) }
}

/// Only a kubelet's own port is shown who this API server is. It speaks TLS whatever was asked for; others are
/// plain unless said otherwise.
fn node<'a>(core: &'a Core, target: &Target<'_>) -> Result<(String, &'a Proxy), Status> {
    let kubelet = kubelet::authority(core, target.name)?;
    let (host, own) = kubelet.rsplit_once(':').unwrap_or((&kubelet, ""));
    if target.port.is_empty() || target.port == own {
        return Ok((format!("https://{kubelet}"), &core.kubelets));
    }
    let port: u16 = target
        .port
        .parse()
        .map_err(|_| Status::bad_request(format!("invalid port {:?}", target.port)))?;
    let host = host.trim_matches(['[', ']']);
    check_address(host)?;
    Ok((base(target.scheme, host, port.into()), &core.proxy))
}

fn service(core: &Core, namespace: &str, target: &Target<'_>) -> Result<String, Status> {
    let gone = || Status::not_found(&GroupResource::new("", "services"), target.name);
    let service = core.lookup.object("", "services", namespace, target.name).ok_or_else(gone)?;
    let ports: Vec<&Value> = service["spec"]["ports"].as_array().into_iter().flatten().collect();
    let number: Option<u64> = target.port.parse().ok();
    let chosen = match (target.port, ports.as_slice()) {
        ("", [only]) => Some(*only),
        ("", _) => None,
        (name, _) => ports.iter().copied().find(|port| {
            port["name"] == name || (number.is_some() && port["port"].as_u64() == number)
        }),
    };
    let unavailable = || {
        Status::service_unavailable(format!("no endpoints available for service {:?}", target.name))
    };
    let chosen = chosen.ok_or_else(|| {
        Status::service_unavailable(format!(
            "no service port {:?} found for service {:?}",
            target.port, target.name
        ))
    })?;
    let name = chosen["name"].as_str().unwrap_or_default();
    let slices = core.lookup.labelled(
        "discovery.k8s.io",
        "endpointslices",
        namespace,
        ("kubernetes.io/service-name", target.name),
    );
    let mut addresses = Vec::new();
    for slice in &slices {
        let mut listed = slice["ports"].as_array().into_iter().flatten();
        let port = listed.find(|port| port["name"].as_str().unwrap_or_default() == name);
        let Some(port) = port.and_then(|port| port["port"].as_u64()) else { continue };
        let ready = slice["endpoints"].as_array().into_iter().flatten();
        for endpoint in ready.filter(|endpoint| endpoint["conditions"]["ready"] != false) {
            addresses.extend(
                endpoint["addresses"][0].as_str().map(|address| (address.to_owned(), port)),
            );
        }
    }
    if addresses.is_empty() {
        return Err(unavailable());
    }
    let (address, port) = addresses.swap_remove(core.pick(addresses.len()));
    check_address(&address)?;
    Ok(base(target.scheme, &address, port))
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
        assert_eq!(base("", "::1", 80), "http://[::1]:80");
    }

    #[test]
    fn the_path_behind_stays_encoded() {
        let path = "/api/v1/namespaces/d/pods/web/proxy/a%2Fb/c";
        assert_eq!(raw_rest(path, 7), "/a%2Fb/c");
        assert_eq!(raw_rest("/api/v1/nodes/n/proxy", 5), "/");
    }

    #[test]
    fn reported_addresses_are_not_trusted_blindly() {
        assert!(check_address("10.244.0.5").is_ok());
        for address in ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "0.0.0.0", "evil.example"]
        {
            assert!(check_address(address).is_err(), "{address}");
        }
    }
}
