//! Binding a pod to a node.

use std::sync::Arc;

use bytes::Bytes;
use meta::{GroupResource, GroupVersionKind, Status};
use serde_json::Value;

use super::begin;
use crate::object::{meta_text, metadata};
use crate::outcome::Answer;
use crate::pipeline::{self, Change, Part, success, write};
use crate::registry::Registry;
use crate::request::{Action, Request};
use crate::strategy::pod;

/// POST of `pods/<name>/binding`.
pub(super) async fn execute(
    engine: &Arc<Registry>,
    request: &Request,
    kind: &GroupVersionKind,
) -> Answer {
    let (context, binding) = begin(engine, request, kind, "binding").await?;
    let name = context.name()?;
    let wanted = pod::Binding {
        node: binding["target"]["name"].as_str().unwrap_or_default(),
        labels: binding["metadata"]["labels"].as_object(),
        annotations: binding["metadata"]["annotations"].as_object(),
        now: pipeline::now(&context),
    };
    let resource = GroupResource::new("", "pods/binding");
    let change = Change::through("binding", Part::Binding);
    write(&context, &change, |old: &Value| {
        let mut pod = old.clone();
        pod::bind(&mut pod, name, &wanted)
            .map_err(|reason| Status::conflict(&resource, name, reason))?;
        for field in ["uid", "resourceVersion"] {
            let claimed = meta_text(&binding, field);
            if !claimed.is_empty() {
                metadata(&mut pod).insert(field.to_owned(), claimed.into());
            }
        }
        Ok(pod)
    })
    .await?;
    Ok(success(&context, 201, Value::Null))
}

/// POST of `bindings`: the pod's name is in the body.
pub(super) async fn execute_unnamed(engine: &Arc<Registry>, request: &Request) -> Answer {
    let Action::Create(body) = &request.action else { return Err(Status::no_such_path()) };
    let pods = engine.rows.get("", "v1", "pods").ok_or_else(Status::no_such_path)?;
    let name = name_in(body)?;
    let request = Request {
        row: pods.clone(),
        name: Some(name),
        subresource: Some("binding".to_owned()),
        ..request.clone()
    };
    execute(engine, &request, &GroupVersionKind::new("", "v1", "Binding")).await
}

fn name_in(body: &Bytes) -> Result<String, Status> {
    let binding: Value =
        serde_json::from_slice(body).map_err(|error| Status::bad_request(error.to_string()))?;
    Ok(meta_text(&binding, "name").to_owned())
}
