//! Requests on resources: from HTTP to the engine's [`registry::Request`] and back.
//!
//! Owns which method means which action, body limits and media types of bodies. Refuses to know what the
//! engine does with an action.

use bytes::Bytes;
use codec::{Accepted, BodyFormat};
use http::{Request, Response, StatusCode, header};
use meta::{GroupVersionKind, Status, fields::FieldTerm};
use registry::{Action, Params, PatchType, Row, UserInfo, Verb};
use serde_json::Value;
use serve::{Body, body::ReadError};

use super::{Context, encode, kubelet, proxy, reviews, token};
use crate::{
    authz::Attributes,
    identity::Identity as _,
    request::{RequestInfo, field_terms},
    server::Core,
};

/// The largest body a client may send, in bytes (upstream's limit of a write).
pub(crate) const MOST_BODY: usize = 3 * 1024 * 1024;

/// Whether the resource is served in that scope: what has no namespace is not served within one.
pub(crate) fn supports(row: &Row, namespace: &str, resource: &str) -> bool {
    row.namespaced() || namespace.is_empty() || resource == "namespaces"
}

/// Whether a request is passed on to a kubelet, a pod or a service instead of being answered by the engine.
pub(crate) fn is_proxied(row: &Row, info: &RequestInfo) -> bool {
    let core = row.resource.group.is_empty();
    core && match (info.resource(), info.subresource()) {
        ("pods" | "services" | "nodes", "proxy") => true,
        ("pods", streamed) => kubelet::handles(streamed),
        _ => false,
    }
}

/// Passes such a request on.
pub(crate) async fn proxied(
    core: &Core,
    context: &Context<'_>,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    if context.info.subresource() == "proxy" {
        proxy::answer(core, context, request).await
    } else {
        kubelet::answer(core, context, request).await
    }
}

/// Answers a request on a resource.
pub(crate) async fn answer(
    core: &Core,
    context: &Context<'_>,
    body: Body,
) -> Result<Response<Body>, Status> {
    let subresource = context.info.subresource();
    check_verb(context)?;
    let wants = encode::wants(context)?;
    if reviews::is_review(&context.row) || subresource == "token" {
        return question(core, context, wants, body).await;
    }
    let action = action(context, body).await?;
    let mut params = Params::parse(action.verb(), context.query.pairs())?;
    complete(core, context, &action, &mut params).await;
    let namespaced = context.row.namespaced();
    let namespace = context.info.namespace();
    let mut name = Some(context.info.name()).filter(|name| !name.is_empty());
    if let (Action::Watch, Some(named)) = (&action, name.take_if(|_| context.info.legacy_watch())) {
        let terms = field_terms(&params.field_selector);
        let meant = |term: &FieldTerm| {
            term.field == "metadata.name" && !term.negated && term.value == named
        };
        if params.field_selector.is_empty() {
            params.field_selector = format!("metadata.name={named}");
        } else if !terms.iter().any(meant) {
            return Err(Status::bad_request(
                "fieldSelector metadata.name doesn't match requested name",
            ));
        }
    }
    let request = registry::Request {
        user: context.user.clone(),
        row: context.row.clone(),
        namespace: (namespaced && !namespace.is_empty()).then(|| namespace.to_owned()),
        name: name.map(str::to_owned),
        subresource: (!subresource.is_empty()).then(|| subresource.to_owned()),
        action,
        params,
    };
    let outcome = core.registry.execute(request).await?;
    encode::outcome(core, context, wants, outcome).await
}

/// Whether the path takes the method at all.
fn check_verb(context: &Context<'_>) -> Result<(), Status> {
    let (row, info) = (&context.row, context.info);
    let verbs = match info.subresource() {
        "" => &row.verbs,
        part => &row.subresource(part).ok_or_else(Status::no_such_path)?.verbs,
    };
    match info.verb().parse::<Verb>() {
        Ok(verb) if verbs.contains(&verb) => Ok(()),
        Ok(Verb::Watch) if info.legacy_watch() => Err(Status::no_such_path()),
        Ok(Verb::Watch) if verbs.contains(&Verb::List) => {
            Err(Status::method_not_supported(&row.group_resource(), info.verb()))
        }
        _ => Err(Status::method_not_allowed()),
    }
}

/// What the method and path ask the engine to do.
async fn action(context: &Context<'_>, body: Body) -> Result<Action, Status> {
    let named = !context.info.name().is_empty();
    let unsupported = Status::method_not_allowed;
    let whole = context.info.subresource().is_empty();
    Ok(match context.info.verb() {
        "get" => Action::Get,
        "list" => Action::List,
        "watch" => Action::Watch,
        "create" if whole && named => return Err(unsupported()),
        "create" if whole && context.row.namespaced() && context.info.namespace().is_empty() => {
            return Err(unsupported());
        }
        "create" => Action::Create(json_body(context, body).await?),
        "update" if named => Action::Update(json_body(context, body).await?),
        "patch" if named => {
            let kind = patch_type(context)?;
            let bytes = read(body).await?;
            Action::Patch(kind, if kind == PatchType::Apply { applied(bytes)? } else { bytes })
        }
        "delete" => Action::Delete(json_body(context, body).await?),
        "deletecollection" => Action::DeleteCollection(json_body(context, body).await?),
        _ => return Err(unsupported()),
    })
}

/// Answers a question posed by creating an object that is not stored.
async fn question(
    core: &Core,
    context: &Context<'_>,
    wants: Accepted,
    body: Body,
) -> Result<Response<Body>, Status> {
    let bytes = json_body(context, body).await?;
    let kind = context
        .row
        .subresource(context.info.subresource())
        .map_or(&context.row.kind, |subresource| &subresource.kind);
    let object = posed(context, kind, &bytes)?;
    let answered = if context.info.subresource() == "token" {
        token::create(core, context, object, jiff::Timestamp::now()).await?
    } else {
        reviews::answer(core, context, object).await?
    };
    encode::value(wants, StatusCode::CREATED, &answered)
}

/// The question in a body, complete and by the rules of its kind.
fn posed(context: &Context<'_>, kind: &GroupVersionKind, bytes: &[u8]) -> Result<Value, Status> {
    let params = Params::parse(Verb::Create, context.query.pairs())?;
    let mut object = schema::decode(kind, bytes, params.field_validation)
        .map_err(|error| Status::bad_request(error.to_string()))?
        .value;
    for part in ["metadata", "spec"] {
        if !object[part].is_object() {
            object[part] = Value::Object(serde_json::Map::new());
        }
    }
    reviews::place(context, &mut object)?;
    schema::rules::default(kind, &mut object);
    let errors = schema::rules::validate(kind, &object);
    if errors.is_empty() { Ok(object) } else { Err(reviews::refuse(kind, errors)) }
}

/// The body, JSON whatever syntax it came in.
async fn json_body(context: &Context<'_>, body: Body) -> Result<Bytes, Status> {
    let format = codec::media::body_format(content_type(context));
    let bytes = read(body).await?;
    if bytes.is_empty() && context.info.verb().starts_with("delete") {
        // Nothing is nothing, whatever it is said to be.
        return Ok(bytes);
    }
    match format? {
        BodyFormat::Json => Ok(bytes),
        BodyFormat::Yaml | BodyFormat::Protobuf if bytes.is_empty() => Ok(bytes),
        BodyFormat::Protobuf => super::bodies::from_protobuf(context, &bytes),
        BodyFormat::Yaml => super::bodies::from_yaml(context, &bytes),
    }
}

/// What is applied, as JSON. Most clients send YAML that is JSON already.
fn applied(body: Bytes) -> Result<Bytes, Status> {
    if body.first() == Some(&b'{') && serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok()
    {
        return Ok(body);
    }
    let json = codec::yaml::to_json(&body).map(Bytes::from);
    json.map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))
}

/// The name of a component of the cluster, whose requests have no `User-Agent`.
fn component(user: &UserInfo) -> &str {
    match user.node() {
        Some(_) => "kubelet",
        None => user
            .name
            .strip_prefix("system:")
            .and_then(|name| name.rsplit(':').next())
            .unwrap_or_default(),
    }
}

/// What the engine is to know beside the query: who manages what is written, and whether an apply or update that
/// finds nothing may create it.
async fn complete(core: &Core, context: &Context<'_>, action: &Action, params: &mut Params) {
    let may_create = match action {
        // An apply says itself who manages what it applies.
        Action::Patch(PatchType::Apply, _) => true,
        Action::Create(_) | Action::Update(_) | Action::Patch(..) => {
            let agent = context.headers.get(header::USER_AGENT);
            match agent.and_then(|value| value.to_str().ok()) {
                Some(agent) => params.manage_as(agent),
                None => params.manage_as(component(&context.user)),
            }
            context.row.upsert && matches!(action, Action::Update(_))
        }
        _ => false,
    };
    if !may_create || context.user.is_master() {
        return;
    }
    let info = context.info;
    let asked = Attributes {
        verb: "create",
        resource_request: true,
        group: info.group(),
        version: info.version(),
        resource: info.resource(),
        subresource: info.subresource(),
        namespace: info.namespace(),
        name: info.name(),
        path: info.path(),
        ..Attributes::default()
    };
    params.create_refused = core.authorizer.check(&context.user, &asked).await.err().map(Box::new);
}

fn patch_type(context: &Context<'_>) -> Result<PatchType, Status> {
    let media = codec::media::patch_type(content_type(context))?;
    [PatchType::Json, PatchType::Merge, PatchType::Strategic, PatchType::Apply]
        .into_iter()
        .find(|kind| kind.media_type() == media)
        .ok_or_else(|| Status::unsupported_media_type(codec::media::PATCHES))
}

fn content_type<'a>(context: &'a Context<'_>) -> Option<&'a str> {
    context.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())
}

/// The whole body, within what a client may send.
pub(crate) async fn read(body: Body) -> Result<Bytes, Status> {
    body.read(MOST_BODY).await.map_err(|error| match error {
        ReadError::TooLarge { limit } => Status::too_large(limit),
        ReadError::Broken(source) => {
            Status::bad_request(format!("unable to read request body: {source}"))
        }
    })
}
