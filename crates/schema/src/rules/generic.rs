//! Validation from the type graph, for kinds without rules of their own.

use meta::GroupVersionKind;
use serde_json::Value;

use super::at::{At, Errors};
use super::selector;
use crate::types::{self, Of, Type};

/// Reports required text that is absent, unknown words and bad label selectors in everything but metadata and
/// status.
///
/// Go does not tell absent objects, lists and numbers from empty ones, so upstream cannot require those here.
pub(super) fn validate(kind: &GroupVersionKind, object: &Value, errors: &mut Errors) {
    let Some(of) = types::by_kind(&kind.group, &kind.version, &kind.kind) else { return };
    let root = At::root(object);
    for field in of.fields.iter().filter(|field| field.name != "status") {
        check(of, field, &root, errors);
    }
}

fn check(owner: &Type, field: &types::Field, object: &At<'_>, errors: &mut Errors) {
    let at = object.field(field.name);
    match (at.value, field.of) {
        (Value::Null, Of::String) if field.required => return at.required("", errors),
        (Value::Null, _) => return,
        // Metadata has rules of its own, and templates of pods those of pods.
        _ if field.name == "metadata"
            || matches!(field.of.object(), Some(of) if of.short_name() == "PodTemplateSpec") =>
        {
            return;
        }
        _ => {}
    }
    if (owner.short_name(), field.name) == ("CustomResourceDefinitionSpec", "scope") {
        at.known(&["Cluster", "Namespaced"], errors);
    }
    walk(&field.of, &at, errors);
}

fn walk(of: &Of, at: &At<'_>, errors: &mut Errors) {
    match (of, at.value) {
        (Of::Object(id), Value::Object(_)) => {
            let of = types::by_id(*id);
            if of.short_name() == "LabelSelector" {
                return selector::label_selector(at, errors);
            }
            for field in of.fields {
                check(of, field, at, errors);
            }
        }
        (Of::List(of), Value::Array(items)) if of.object().is_some() => {
            for (index, value) in items.iter().enumerate() {
                walk(of, &At { value, path: at.path.index(index) }, errors);
            }
        }
        (Of::Map(of), Value::Object(entries)) if of.object().is_some() => {
            for (key, value) in entries {
                walk(of, &At { value, path: at.path.key(key) }, errors);
            }
        }
        _ => {}
    }
}
