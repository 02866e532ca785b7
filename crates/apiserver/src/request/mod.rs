//! What a request asks for, read off its method, path and query by the rules every Kubernetes API server
//! follows, so that the attributes clients are authorized by are the same.
//!
//! Refuses to know which resources exist.

pub mod query;

use std::ops::Range;

use http::Method;
use meta::{FieldSelector, Status, fields::FieldTerm};

pub use query::Query;

/// A request on a resource or on another path.
#[derive(Debug, Default)]
pub struct RequestInfo {
    path: String,
    verb: &'static str,
    resource_request: bool,
    group: Range<usize>,
    version: Range<usize>,
    namespace: Range<usize>,
    resource: Range<usize>,
    name: Range<usize>,
    subresource: Range<usize>,
    /// Where the path goes on after name and subresource (`proxy` requests).
    rest: usize,
    /// A name given by the field selector of a collection request.
    selected_name: Option<String>,
    /// Whether the deprecated `/watch/` prefix was used.
    legacy_watch: bool,
}

impl RequestInfo {
    /// Reads method, path (as sent, percent-encoded) and query.
    ///
    /// # Errors
    /// 400 for a `/watch/` or `/proxy/` prefix that nothing follows.
    pub fn parse(method: &Method, path: &str, query: &Query) -> Result<Self, Status> {
        let mut info = Self { path: decode_path(path), ..Self::default() };
        let parts = segments(&info.path);
        if !info.locate(method, &parts)? {
            info.verb = lower_method(method);
            return Ok(info);
        }
        info.resource_request = true;
        if info.name.is_empty() {
            match info.verb {
                "get" => info.collection(query),
                "delete" => info.verb = "deletecollection",
                _ => {}
            }
        }
        Ok(info)
    }

    /// Finds the parts of a resource path; false for other paths.
    fn locate(&mut self, method: &Method, parts: &[Range<usize>]) -> Result<bool, Status> {
        let text = |part: &Range<usize>| &self.path[part.clone()];
        let mut parts = match parts {
            [api, rest @ ..] if text(api) == "api" && rest.len() >= 2 => rest,
            [apis, group, rest @ ..] if text(apis) == "apis" && rest.len() >= 2 => {
                self.group = group.clone();
                rest
            }
            _ => return Ok(false),
        };
        self.version = parts[0].clone();
        parts = &parts[1..];
        self.verb = match (text(&parts[0]), method.as_str()) {
            (special @ ("watch" | "proxy"), _) => {
                if parts.len() < 2 {
                    return Err(Status::bad_request(format!(
                        "unable to determine kind and namespace from url, {}",
                        self.path
                    )));
                }
                self.legacy_watch = special == "watch";
                parts = &parts[1..];
                if self.legacy_watch { "watch" } else { "proxy" }
            }
            (_, "POST") => "create",
            (_, "GET" | "HEAD") => "get",
            (_, "PUT") => "update",
            (_, "PATCH") => "patch",
            (_, "DELETE") => "delete",
            _ => "",
        };
        if text(&parts[0]) == "namespaces" && parts.len() > 1 {
            self.namespace = parts[1].clone();
            if parts.len() > 2 && !matches!(text(&parts[2]), "status" | "finalize") {
                parts = &parts[2..];
            }
        }
        self.resource = parts[0].clone();
        if let Some(name) = parts.get(1) {
            self.name = name.clone();
        }
        let mut last = parts.len().min(2) - 1;
        if parts.len() >= 3 && self.verb != "proxy" {
            self.subresource = parts[2].clone();
            last = 2;
        }
        self.rest = parts[last].end;
        Ok(true)
    }

    /// A read without a name is a list or a watch; a field selector may name the one object it is about.
    fn collection(&mut self, query: &Query) {
        self.verb = if query.flag("watch") { "watch" } else { "list" };
        let terms = field_terms(query.get("fieldSelector").unwrap_or_default());
        let named = terms.into_iter().find(|term| term.field == "metadata.name" && !term.negated);
        self.selected_name = named.map(|term| term.value).filter(|name| {
            !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%'])
        });
    }

    /// The decoded path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The verb authorization sees: one of the API's for resources, the lower-case method otherwise.
    pub fn verb(&self) -> &'static str {
        self.verb
    }

    /// Whether the path names a resource.
    pub fn is_resource(&self) -> bool {
        self.resource_request
    }

    /// The API group; empty for the core group.
    pub fn group(&self) -> &str {
        &self.path[self.group.clone()]
    }

    /// The API version.
    pub fn version(&self) -> &str {
        &self.path[self.version.clone()]
    }

    /// `group/version` as it stands in the path; the version alone for the core group.
    pub fn group_version(&self) -> &str {
        let start = if self.group.is_empty() { self.version.start } else { self.group.start };
        &self.path[start..self.version.end]
    }

    /// The namespace, empty if none is given. Requests on a Namespace carry its own name.
    pub fn namespace(&self) -> &str {
        &self.path[self.namespace.clone()]
    }

    /// The plural resource name.
    pub fn resource(&self) -> &str {
        &self.path[self.resource.clone()]
    }

    /// The name in the path.
    pub fn name(&self) -> &str {
        &self.path[self.name.clone()]
    }

    /// The name authorization goes by: that of the path, or the one a field selector is limited to.
    pub fn authorized_name(&self) -> &str {
        self.selected_name.as_deref().unwrap_or_else(|| self.name())
    }

    /// The subresource, empty if none.
    pub fn subresource(&self) -> &str {
        &self.path[self.subresource.clone()]
    }

    /// What follows resource, name and subresource, leading slash included.
    pub fn rest(&self) -> &str {
        &self.path[self.rest..]
    }

    /// Whether the deprecated `/watch/` prefix was used.
    pub fn legacy_watch(&self) -> bool {
        self.legacy_watch
    }

    /// Whether the answer has no natural end or length, so that neither the time limit nor the bound on
    /// concurrent requests applies.
    pub fn long_running(&self) -> bool {
        self.verb == "watch"
            || self.verb == "proxy"
            || self.path == crate::TUNNEL_PATH
            || matches!(self.subresource(), "attach" | "exec" | "proxy" | "log" | "portforward")
    }
}

/// The terms of a field selector. A malformed one has none: the engine refuses the request later.
pub fn field_terms(selector: &str) -> Vec<FieldTerm> {
    if selector.is_empty() {
        return Vec::new();
    }
    FieldSelector::parse(selector).map(|selector| selector.terms).unwrap_or_default()
}

/// The requirements of a label selector; likewise.
pub(crate) fn label_requirements(selector: &str) -> Vec<meta::labels::Requirement> {
    if selector.is_empty() {
        return Vec::new();
    }
    let read = meta::labels::Selector::parse(selector);
    read.map(|selector| selector.requirements().to_vec()).unwrap_or_default()
}

fn segments(path: &str) -> Vec<Range<usize>> {
    let trimmed = path.trim_matches('/');
    let offset = path.len() - path.trim_start_matches('/').len();
    let (mut parts, mut start) = (Vec::with_capacity(8), 0);
    if trimmed.is_empty() {
        return parts;
    }
    for part in trimmed.split('/') {
        parts.push(offset + start..offset + start + part.len());
        start += part.len() + 1;
    }
    parts
}

fn decode_path(path: &str) -> String {
    if path.contains('%') { query::percent_decode(path, false) } else { path.to_owned() }
}

fn lower_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
