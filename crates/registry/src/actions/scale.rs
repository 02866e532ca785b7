//! `autoscaling/v1 Scale`: the number of replicas of anything that has one.

use std::sync::Arc;

use meta::{FieldError, FieldPath, GroupVersionKind, Selector, Status};
use serde_json::{Map, Value, json};

use crate::object::{child, meta_text, metadata};
use crate::outcome::{Answer, Outcome};
use crate::pipeline::{self, Change, Context, Part, Scaled, Written, apply_patch, write};
use crate::read;
use crate::registry::Registry;
use crate::request::{Action, PatchType, Request};

/// Reads or writes a scale.
pub(super) async fn execute(
    engine: &Arc<Registry>,
    request: &Request,
    kind: &GroupVersionKind,
) -> Answer {
    let context = Context::new(engine, request)?;
    let how = Change::through("scale", Part::Any);
    let written = match &request.action {
        Action::Update(body) => {
            let scale = pipeline::decode(&context, body, kind)?;
            pipeline::check_name(&context, &scale)?;
            let wish = |_: &Value| Ok(scale.clone());
            write(&context, &how, Scaled::update(&context, &wish, of, set)).await?
        }
        Action::Patch(patch, body) => {
            request.params.check_patch(*patch)?;
            if *patch == PatchType::Apply {
                write(&context, &how, Scaled::apply(&context, body, of, set)?).await?
            } else {
                let wish = |old: &Value| apply_patch(&context, *patch, body, old, kind);
                write(&context, &how, Scaled::update(&context, &wish, of, set)).await?
            }
        }
        _ => {
            let object = read::find(engine, request).await?;
            return Ok(answer(&context, of(&object.value(&request.row))));
        }
    };
    Ok(match written {
        Written::Stored(object) => answer(&context, of(&object.value(&request.row))),
        Written::Gone(object, _) => answer(&context, of(&object)),
        Written::Created(outcome) => outcome,
    })
}

fn answer(context: &Context<'_>, scale: Value) -> Outcome {
    Outcome::Object {
        code: 200,
        bytes: scale.to_string().into(),
        identity: None,
        warnings: context.take_warnings(),
    }
}

/// The scale of an object.
fn of(object: &Value) -> Value {
    let mut meta = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        let value = &object["metadata"][field];
        if !value.is_null() {
            meta.insert(field.to_owned(), value.clone());
        }
    }
    let mut spec = Map::new();
    if let Some(replicas) = object["spec"]["replicas"].as_i64().filter(|r| *r != 0) {
        spec.insert("replicas".to_owned(), replicas.into());
    }
    let mut status = Map::new();
    status.insert("replicas".to_owned(), object["status"]["replicas"].as_i64().unwrap_or(0).into());
    let selector = selector(&object["spec"]["selector"]);
    if !selector.is_empty() {
        status.insert("selector".to_owned(), selector.into());
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": meta, "spec": spec, "status": status,
    })
}

/// A selector as text: those of replication controllers are plain maps.
fn selector(selector: &Value) -> String {
    let plain = selector.as_object().is_some_and(|map| map.values().all(Value::is_string));
    let selector = if plain { &json!({"matchLabels": selector}) } else { selector };
    Selector::from_label_selector(selector).map(|s| s.to_string()).unwrap_or_default()
}

/// The object with the number of replicas that a scale asks for.
fn set(old: &Value, scale: &Value) -> Result<Value, Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let path = FieldPath::new("spec").child("replicas");
        let error = FieldError::invalid(path, replicas, "must be greater than or equal to 0");
        return Err(Status::invalid(
            ("autoscaling", "Scale"),
            meta_text(scale, "name"),
            vec![error],
        ));
    }
    let mut object = old.clone();
    child(&mut object, "spec").insert("replicas".to_owned(), replicas.into());
    for field in ["resourceVersion", "uid"] {
        match &scale["metadata"][field] {
            Value::Null => metadata(&mut object).remove(field),
            value => metadata(&mut object).insert(field.to_owned(), value.clone()),
        };
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_a_view() {
        let object = json!({
            "metadata": {"name": "web", "namespace": "d", "resourceVersion": "4", "labels": {"a": "b"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"replicas": 2},
        });
        let mut scale = of(&object);
        assert_eq!(scale["spec"], json!({"replicas": 3}));
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=web"}));
        assert!(scale["metadata"].get("labels").is_none());
        scale["spec"]["replicas"] = 5.into();
        assert_eq!(set(&object, &scale).expect("valid")["spec"]["replicas"], 5);
        scale["spec"]["replicas"] = (-1).into();
        assert_eq!(set(&object, &scale).expect_err("negative").code, 422);
        assert_eq!(selector(&json!({"app": "web"})), "app=web");
    }
}
