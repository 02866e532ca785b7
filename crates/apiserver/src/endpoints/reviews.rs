//! Questions that are asked by creating an object which is answered and not stored: token and access reviews.
//!
//! Refuses to know how the answers are found; that is for authentication and authorization.

use std::sync::Arc;

use meta::{
    FieldError, GroupVersionKind, Status,
    labels::{Requirement, Selector},
};
use registry::{Row, UserInfo};
use serde_json::{Map, Value, json};

use super::Context;
use crate::{
    authz::{Attributes, Decision, rule::Rule},
    server::Core,
};

/// Whether this kind is a review, answered here.
pub(crate) fn is_review(row: &Row) -> bool {
    matches!(row.resource.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io")
}

/// Answers the review in `object`, which becomes the answer.
pub(crate) async fn answer(
    core: &Core,
    context: &Context<'_>,
    mut object: Value,
) -> Result<Value, Status> {
    let user = &context.user;
    match context.row.resource.resource.as_str() {
        "tokenreviews" => token(core, &mut object).await?,
        "selfsubjectreviews" => object["status"] = json!({"userInfo": user_info(user)}),
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            access(core, &mut object, None).await;
        }
        "selfsubjectaccessreviews" => access(core, &mut object, Some(user)).await,
        "selfsubjectrulesreviews" => rules(core, context, &mut object)?,
        _ => return Err(Status::no_such_path()),
    }
    Ok(object)
}

/// Says in the question in which namespace it is posed, as the path has it.
pub(crate) fn place(context: &Context<'_>, object: &mut Value) -> Result<(), Status> {
    let path = context.info.namespace();
    let given = object["metadata"]["namespace"].as_str().unwrap_or_default();
    if !path.is_empty() && !given.is_empty() && given != path {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if !path.is_empty() {
        object["metadata"]["namespace"] = path.into();
    }
    Ok(())
}

/// The answer to a question that breaks rules. Upstream does not say which kind of access review it was.
pub(crate) fn refuse(kind: &GroupVersionKind, errors: Vec<FieldError>) -> Status {
    let name = if kind.group == "authorization.k8s.io" { "" } else { kind.kind.as_str() };
    Status::invalid((&kind.group, name), "", errors)
}

/// A user as reviews and audit show it.
pub(crate) fn user_info(user: &UserInfo) -> Value {
    let mut info = Map::new();
    info.insert("username".into(), user.name.as_str().into());
    if !user.uid.is_empty() {
        info.insert("uid".into(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        info.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    Value::Object(info)
}

async fn token(core: &Core, review: &mut Value) -> Result<(), Status> {
    let Some(token) = review["spec"]["token"].as_str().filter(|token| !token.is_empty()) else {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    };
    let audiences: Vec<&str> = review["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    review["status"] = match core.authenticator.token(token, &audiences).await {
        None => json!({"authenticated": false, "user": {}, "error": "invalid bearer token"}),
        Some(found) => {
            let accepted: Vec<&str> = if found.audiences.is_empty() {
                audiences
            } else {
                found.audiences.iter().map(String::as_str).collect()
            };
            json!({"authenticated": true, "user": user_info(&found.user), "audiences": accepted})
        }
    };
    Ok(())
}

/// Answers whether `subject`, or the one the review names, may do what the review says.
async fn access(core: &Core, review: &mut Value, subject: Option<&Arc<UserInfo>>) {
    let spec = &review["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let named = named_subject(spec);
    let text = |value: &'static str| resource[value].as_str().unwrap_or_default();
    let fields = field_terms(&resource["fieldSelector"]);
    let labels = label_requirements(&resource["labelSelector"]);
    let asked = if path.is_null() {
        Attributes {
            verb: text("verb"),
            resource_request: true,
            group: text("group"),
            version: text("version"),
            resource: text("resource"),
            subresource: text("subresource"),
            namespace: text("namespace"),
            name: text("name"),
            path: "",
            fields: &fields,
            labels: &labels,
        }
    } else {
        Attributes {
            verb: path["verb"].as_str().unwrap_or_default(),
            path: path["path"].as_str().unwrap_or_default(),
            ..Attributes::default()
        }
    };
    let subject = subject.map_or(&named, |user| user);
    let (decision, reason) = core.authorizer.explain(subject, &asked).await;
    let mut status = json!({"allowed": decision == Decision::Allow});
    if decision == Decision::Deny {
        status["denied"] = true.into();
    }
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    review["status"] = status;
}

fn named_subject(spec: &Value) -> UserInfo {
    let strings = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let extra = spec["extra"].as_object().into_iter().flatten();
    UserInfo {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups: strings(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), strings(values))).collect(),
    }
}

fn field_terms(selector: &Value) -> Vec<meta::fields::FieldTerm> {
    if let Some(raw) = selector["rawSelector"].as_str() {
        return crate::request::field_terms(raw);
    }
    let requirements = selector["requirements"].as_array().into_iter().flatten();
    let terms = requirements.filter_map(|requirement| {
        let [value] = requirement["values"].as_array()?.as_slice() else { return None };
        Some(meta::fields::FieldTerm {
            field: requirement["key"].as_str()?.to_owned(),
            value: value.as_str()?.to_owned(),
            negated: requirement["operator"] == "NotIn",
        })
    });
    terms.collect()
}

fn label_requirements(selector: &Value) -> Vec<Requirement> {
    let read = match selector["rawSelector"].as_str() {
        Some(raw) => Selector::parse(raw),
        None => Selector::from_label_selector(
            &json!({"matchExpressions": selector["requirements"].as_array()}),
        ),
    };
    read.map(|selector| selector.requirements().to_vec()).unwrap_or_default()
}

/// Lists what the user may do in a namespace.
fn rules(core: &Core, context: &Context<'_>, review: &mut Value) -> Result<(), Status> {
    let Some(namespace) = review["spec"]["namespace"].as_str().filter(|name| !name.is_empty())
    else {
        return Err(Status::bad_request("no namespace on request"));
    };
    let user = &context.user;
    let held = core.authorizer.rules(user, namespace);
    let (paths, resources): (Vec<Rule>, Vec<Rule>) =
        held.into_iter().partition(|rule| !rule.non_resource_urls.is_empty());
    let mut status =
        json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
    let unlisted = core.authorizer.unlisted(user);
    if !unlisted.is_empty() {
        status["incomplete"] = true.into();
        status["evaluationError"] = unlisted.join(", ").into();
    }
    review["status"] = status;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_of_reviews_are_understood() {
        let raw = field_terms(&json!({"rawSelector": "spec.nodeName=a"}));
        assert_eq!((raw[0].field.as_str(), raw[0].value.as_str()), ("spec.nodeName", "a"));
        let listed = field_terms(&json!({"requirements": [
            {"key": "spec.nodeName", "operator": "In", "values": ["a"]},
            {"key": "x", "operator": "Exists"}]}));
        assert_eq!(listed, raw);
        let raw = label_requirements(&json!({"rawSelector": "a in (b),c"}));
        let listed = label_requirements(&json!({"requirements": [
            {"key": "a", "operator": "In", "values": ["b"]}, {"key": "c", "operator": "Exists"}]}));
        assert_eq!((listed.len(), listed), (2, raw));
        assert!(label_requirements(&Value::Null).is_empty());
    }

    #[test]
    fn users_are_shown_without_empty_parts() {
        let user = crate::identity::authenticated("jane", ["team"]);
        assert_eq!(
            user_info(&user),
            json!({"username": "jane", "groups": ["team", "system:authenticated"]})
        );
        let named = named_subject(&json!({"user": "x", "extra": {"k": ["v"]}}));
        assert_eq!(named.extra["k"], ["v"]);
    }
}
