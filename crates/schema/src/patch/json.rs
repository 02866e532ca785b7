//! JSON patch, RFC 6902: a bounded list of operations.

use json_patch::{Patch, PatchErrorKind, PatchOperation};
use serde_json::Value;

use super::PatchError;
use crate::decode::{mismatch, syntax};

/// The most operations one patch may hold, as upstream.
pub const MOST_OPERATIONS: usize = 10_000;

/// How many bytes of JSON the copy operations of one patch may add together.
const MOST_COPIED: usize = 3 * 1024 * 1024;

/// How deep a patched object may nest on its way: a little more than what is decoded then. Operations could nest
/// values without end otherwise, and what walks them is recursive.
const DEEPEST: usize = 120;

/// How many values the operations of one patch may move together; 10,000 of them could move a large object each.
const MOST_MOVED: usize = 5_000_000;

/// Applies a JSON patch.
///
/// # Errors
/// When the body is no JSON patch, has too many operations, nests too deep, or an operation does not apply; `object` is then
/// partly patched and of no use.
pub fn json_patch(object: &mut Value, body: &[u8]) -> Result<(), PatchError> {
    let malformed = |problem| PatchError::Malformed(format!("error decoding patch: {problem}"));
    let operations = match serde_json::from_slice(body) {
        Ok(Value::Array(operations)) => operations,
        Ok(other) => return Err(malformed(mismatch(&other, "[]handlers.jsonPatchOp"))),
        Err(error) => return Err(malformed(syntax(&error, body))),
    };
    if operations.len() > MOST_OPERATIONS {
        return Err(PatchError::TooMany(operations.len()));
    }
    for operation in &operations {
        match operation["op"].as_str() {
            _ if !operation.is_object() => {
                return Err(malformed(mismatch(operation, "handlers.jsonPatchOp")));
            }
            Some("add" | "remove" | "replace" | "move" | "copy" | "test") => {}
            // Not seen before it is to be carried out, upstream.
            other => {
                let name = other.unwrap_or("unknown");
                return Err(PatchError::Failed(format!("Unexpected kind: {name}")));
            }
        }
    }
    let patch: Patch = serde_json::from_value(Value::Array(operations))
        .map_err(|error| malformed(error.to_string()))?;
    let (mut copied, mut moved) = (0, 0);
    for operation in patch.0 {
        if let PatchOperation::Copy(copy) = &operation {
            copied += object.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len());
            if copied > MOST_COPIED {
                return Err(PatchError::Failed(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, \
                     exceeding the limit {MOST_COPIED}"
                )));
            }
        }
        if reaches(object, &operation, &mut moved) > DEEPEST {
            return Err(PatchError::Failed(format!("the patch nests deeper than {DEEPEST}")));
        }
        if moved > MOST_MOVED {
            return Err(PatchError::Failed(format!(
                "the patch moves more than {MOST_MOVED} values"
            )));
        }
        apply(object, operation)?;
    }
    Ok(())
}

/// How deep what an operation puts into `object` will lie there. Counts the values it puts.
fn reaches(object: &Value, operation: &PatchOperation, count: &mut usize) -> usize {
    let put = match operation {
        PatchOperation::Add(step) => Some(&step.value),
        PatchOperation::Replace(step) => Some(&step.value),
        PatchOperation::Move(step) => object.pointer(step.from.as_str()),
        PatchOperation::Copy(step) => object.pointer(step.from.as_str()),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return 0,
    };
    operation.path().as_str().matches('/').count() + put.map_or(0, |value| depth(value, count))
}

/// How deep a value nests; a scalar is 0 deep. Counts the values within.
fn depth(value: &Value, count: &mut usize) -> usize {
    *count += 1;
    let below = match value {
        Value::Array(items) => items.iter().map(|item| depth(item, count)).max(),
        Value::Object(fields) => fields.values().map(|field| depth(field, count)).max(),
        _ => return 0,
    };
    below.unwrap_or(0) + 1
}

fn apply(object: &mut Value, operation: PatchOperation) -> Result<(), PatchError> {
    let (name, from) = describe(&operation);
    let path = operation.path().to_string();
    json_patch::patch_unsafe(object, &[operation]).map_err(|error| {
        PatchError::Failed(match error.kind {
            PatchErrorKind::TestFailed => format!("testing value {path} failed: test failed"),
            PatchErrorKind::InvalidFromPointer => {
                format!("{name} operation does not apply: doc is missing from path: {from}: missing value")
            }
            PatchErrorKind::InvalidPointer if name == "replace" => {
                format!("replace operation does not apply: doc is missing key: {path}: missing value")
            }
            PatchErrorKind::InvalidPointer => {
                format!("{name} operation does not apply: doc is missing path: {path:?}: missing value")
            }
            other => format!("{name} operation does not apply: {other}"),
        })
    })
}

fn describe(operation: &PatchOperation) -> (&'static str, String) {
    match operation {
        PatchOperation::Add(_) => ("add", String::new()),
        PatchOperation::Remove(_) => ("remove", String::new()),
        PatchOperation::Replace(_) => ("replace", String::new()),
        PatchOperation::Move(step) => ("move", step.from.to_string()),
        PatchOperation::Copy(step) => ("copy", step.from.to_string()),
        PatchOperation::Test(_) => ("test", String::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(object: Value, patch: &Value) -> Result<Value, PatchError> {
        let mut object = object;
        json_patch(&mut object, patch.to_string().as_bytes())?;
        Ok(object)
    }

    #[test]
    fn applies_operations_in_order() {
        let patch = json!([
            {"op": "test", "path": "/a", "value": 1},
            {"op": "add", "path": "/list/-", "value": "x"},
            {"op": "replace", "path": "/a", "value": 2},
            {"op": "copy", "from": "/a", "path": "/b"},
            {"op": "remove", "path": "/a"},
        ]);
        let object = patched(json!({"a": 1, "list": []}), &patch).expect("a patch that applies");
        assert_eq!(object, json!({"b": 2, "list": ["x"]}));
    }

    #[test]
    fn names_what_does_not_apply() {
        let failed =
            |patch| patched(json!({"a": 1}), &patch).expect_err("a patch that fails").to_string();
        assert_eq!(
            failed(json!([{"op": "test", "path": "/a", "value": 2}])),
            "testing value /a failed: test failed"
        );
        assert_eq!(
            failed(json!([{"op": "remove", "path": "/b"}])),
            "remove operation does not apply: doc is missing path: \"/b\": missing value"
        );
        assert_eq!(
            failed(json!([{"op": "replace", "path": "/b", "value": 1}])),
            "replace operation does not apply: doc is missing key: /b: missing value"
        );
    }

    #[test]
    fn does_not_nest_without_end() {
        let mut operations = vec![json!({"op": "add", "path": "/x", "value": {}})];
        for level in 0..14 {
            operations.push(json!({"op": "copy", "from": "/x", "path": "/t"}));
            let path = format!("/x{}", "/y".repeat(1 << level));
            operations.push(json!({"op": "move", "from": "/t", "path": path}));
        }
        let outcome = patched(json!({}), &Value::Array(operations));
        assert!(matches!(outcome, Err(PatchError::Failed(_))));
    }

    #[test]
    fn is_bounded() {
        let one = json!({"op": "test", "path": "", "value": {}});
        let many = Value::Array(vec![one; MOST_OPERATIONS + 1]);
        assert_eq!(patched(json!({}), &many), Err(PatchError::TooMany(MOST_OPERATIONS + 1)));
        let doubling = Value::Array(vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 40]);
        let start = json!({"a": ["x".repeat(1024)]});
        assert!(matches!(patched(start, &doubling), Err(PatchError::Failed(_))));
        assert!(matches!(patched(json!({}), &json!({"op": "add"})), Err(PatchError::Malformed(_))));
        let strange = patched(json!({}), &json!([{"op": "jump", "path": "/a"}]));
        assert_eq!(strange, Err(PatchError::Failed("Unexpected kind: jump".to_owned())));
    }
}
