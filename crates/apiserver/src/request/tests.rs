//! Request paths and the attributes they must yield.

use super::*;

fn check(method: Method, target: &str, expected: &str) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let info = RequestInfo::parse(&method, path, &Query::parse(query)).expect("parses");
    let shown = if info.is_resource() {
        format!(
            "{} g={} v={} ns={} r={} n={} s={} rest={}",
            info.verb(),
            info.group(),
            info.version(),
            info.namespace(),
            info.resource(),
            info.authorized_name(),
            info.subresource(),
            info.rest()
        )
    } else {
        format!("{} {}", info.verb(), info.path())
    };
    assert_eq!(shown, expected, "{target}");
}

#[test]
fn paths_that_name_no_resource() {
    check(Method::GET, "/", "get /");
    check(Method::GET, "/api", "get /api");
    check(Method::GET, "/api/v1", "get /api/v1");
    check(Method::GET, "/apis/apps/v1", "get /apis/apps/v1");
    check(Method::HEAD, "/healthz/ping", "head /healthz/ping");
    check(Method::POST, "/foo/v1/pods", "post /foo/v1/pods");
}

#[test]
fn collections_and_objects() {
    check(Method::GET, "/api/v1/nodes", "list g= v=v1 ns= r=nodes n= s= rest=");
    check(Method::GET, "/api/v1/nodes/", "list g= v=v1 ns= r=nodes n= s= rest=/");
    check(Method::HEAD, "/api/v1/nodes/a", "get g= v=v1 ns= r=nodes n=a s= rest=");
    check(
        Method::GET,
        "/apis/apps/v1/namespaces/d/deployments?watch=1",
        "watch g=apps v=v1 ns=d r=deployments n= s= rest=",
    );
    check(
        Method::GET,
        "/apis/apps/v1/deployments?watch=false",
        "list g=apps v=v1 ns= r=deployments n= s= rest=",
    );
    check(
        Method::PUT,
        "/api/v1/namespaces/d/pods/a/status",
        "update g= v=v1 ns=d r=pods n=a s=status rest=",
    );
    check(
        Method::DELETE,
        "/api/v1/namespaces/d/pods",
        "deletecollection g= v=v1 ns=d r=pods n= s= rest=",
    );
    check(Method::DELETE, "/api/v1/namespaces/d/pods/a", "delete g= v=v1 ns=d r=pods n=a s= rest=");
    check(
        Method::GET,
        "/api/v1/nodes/system%3Anode",
        "get g= v=v1 ns= r=nodes n=system:node s= rest=",
    );
}

#[test]
fn namespaces_are_resources_too() {
    check(Method::GET, "/api/v1/namespaces", "list g= v=v1 ns= r=namespaces n= s= rest=");
    check(Method::GET, "/api/v1/namespaces/d", "get g= v=v1 ns=d r=namespaces n=d s= rest=");
    check(
        Method::PUT,
        "/api/v1/namespaces/d/finalize",
        "update g= v=v1 ns=d r=namespaces n=d s=finalize rest=",
    );
}

#[test]
fn special_prefixes_and_proxied_paths() {
    check(
        Method::GET,
        "/api/v1/watch/namespaces/d/pods/a",
        "watch g= v=v1 ns=d r=pods n=a s= rest=",
    );
    check(
        Method::POST,
        "/api/v1/namespaces/d/services/http:web:80/proxy/a/b",
        "create g= v=v1 ns=d r=services n=http:web:80 s=proxy rest=/a/b",
    );
    assert!(RequestInfo::parse(&Method::GET, "/api/v1/watch", &Query::default()).is_err());
    assert!(RequestInfo::parse(&Method::GET, "/apis/apps/v1/watch", &Query::default()).is_err());
}

#[test]
fn a_field_selector_can_name_the_object() {
    check(
        Method::GET,
        "/api/v1/namespaces/d/secrets?fieldSelector=metadata.name%3Dx&watch=true",
        "watch g= v=v1 ns=d r=secrets n=x s= rest=",
    );
    check(
        Method::GET,
        "/api/v1/namespaces/d/secrets?fieldSelector=metadata.name!=x",
        "list g= v=v1 ns=d r=secrets n= s= rest=",
    );
    let terms = field_terms(r"a==1,b!=x\,y");
    assert_eq!(terms.len(), 2);
    assert!(!terms[0].negated && terms[0].value == "1");
    assert!(terms[1].negated && terms[1].value == "x,y");
    assert!(field_terms("junk").is_empty());
}
