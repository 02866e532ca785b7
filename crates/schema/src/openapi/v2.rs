//! Version 2 of OpenAPI, made of the documents of version 3.
//!
//! Version 2 is one document for everything, says bodies as parameters, media types once an operation, and
//! allows facts beside a reference.

use serde_json::{Map, Value, json};

use super::{SCHEMAS, security};

/// Documents of version 3 on their way into one of version 2.
#[derive(Default)]
pub struct Merge {
    paths: Map<String, Value>,
    definitions: Map<String, Value>,
}

impl Merge {
    /// Adds a document.
    pub fn add(&mut self, mut document: Value) {
        if let Value::Object(schemas) = document["components"]["schemas"].take() {
            for (name, schema) in schemas {
                self.define(name, definition(schema));
            }
        }
        if let Value::Object(paths) = document["paths"].take() {
            self.paths.extend(paths.into_iter().map(|(path, item)| (path, path_item(item))));
        }
    }

    /// Options belong to every group: each document names its own.
    fn define(&mut self, name: String, schema: Value) {
        const KINDS: &str = "x-kubernetes-group-version-kind";
        let Some(known) = self.definitions.get_mut(&name) else {
            self.definitions.insert(name, schema);
            return;
        };
        let (Some(known), Some(more)) = (known[KINDS].as_array_mut(), schema[KINDS].as_array())
        else {
            return;
        };
        for kind in more {
            if !known.contains(kind) {
                known.push(kind.clone());
            }
        }
    }

    /// The document.
    #[must_use]
    pub fn finish(self, version: &str) -> Value {
        json!({
            "swagger": "2.0", "info": {"title": "Kubernetes", "version": version},
            "paths": self.paths, "definitions": self.definitions,
            "security": [{"BearerToken": []}], "securityDefinitions": security(),
        })
    }
}

/// A schema as version 2 has it.
fn definition(schema: Value) -> Value {
    let Value::Object(schema) = schema else { return schema };
    let mut out = Map::new();
    for (key, value) in schema {
        match (key.as_str(), value) {
            ("$ref", Value::String(target)) => {
                out.insert(key, target.replace(SCHEMAS, "#/definitions/").into());
            }
            // A reference with facts beside it.
            ("allOf", Value::Array(one)) => {
                for one in one {
                    if let Value::Object(inner) = definition(one) {
                        out.extend(inner);
                    }
                }
            }
            // A number or text; version 2 has no word for that.
            ("oneOf", _) => {
                out.insert("type".to_owned(), "string".into());
            }
            ("properties", Value::Object(fields)) => {
                let fields: Map<_, _> =
                    fields.into_iter().map(|(name, field)| (name, definition(field))).collect();
                out.insert(key, fields.into());
            }
            ("items" | "additionalProperties", value) => {
                out.insert(key, definition(value));
            }
            (_, value) => {
                out.insert(key, value);
            }
        }
    }
    Value::Object(out)
}

fn path_item(item: Value) -> Value {
    let Value::Object(item) = item else { return item };
    let fields = item.into_iter().map(|(key, value)| {
        let value = if key == "parameters" { parameters(value) } else { operation(value) };
        (key, value)
    });
    Value::Object(fields.collect())
}

fn operation(operation: Value) -> Value {
    let Value::Object(mut operation) = operation else { return operation };
    let mut taken = operation.remove("parameters").map(parameters).unwrap_or_else(|| json!([]));
    let mut consumes = json!(["*/*"]);
    if let Some(mut body) = operation.remove("requestBody") {
        let required = body["required"].take();
        let (types, schema) = content(body["content"].take());
        let mut parameter = json!({"in": "body", "name": "body", "schema": schema});
        if required == true {
            parameter["required"] = required;
        }
        if let Some(list) = taken.as_array_mut() {
            list.insert(0, parameter);
        }
        consumes = types;
    }
    if taken.as_array().is_some_and(|list| !list.is_empty()) {
        operation.insert("parameters".to_owned(), taken);
    }
    let mut produces = json!(["*/*"]);
    if let Some(Value::Object(responses)) = operation.get_mut("responses") {
        for response in responses.values_mut().filter_map(Value::as_object_mut) {
            if let Some(answers) = response.remove("content") {
                let (types, schema) = content(answers);
                response.insert("schema".to_owned(), schema);
                produces = types;
            }
        }
    }
    operation.insert("consumes".to_owned(), consumes);
    operation.insert("produces".to_owned(), produces);
    operation.insert("schemes".to_owned(), json!(["https"]));
    Value::Object(operation)
}

/// The media types of a content, and the schema that they share.
fn content(content: Value) -> (Value, Value) {
    let Value::Object(content) = content else { return (json!([]), json!({})) };
    let types = content.keys().cloned().collect();
    let schema = content.into_iter().next().map(|(_, mut media)| media["schema"].take());
    (types, definition(schema.unwrap_or_default()))
}

/// Parameters whose type stands beside their name.
fn parameters(list: Value) -> Value {
    let Value::Array(list) = list else { return list };
    let flat = list.into_iter().map(|mut parameter| {
        if let (Value::Object(schema), Some(parameter)) =
            (parameter["schema"].take(), parameter.as_object_mut())
        {
            parameter.remove("schema");
            parameter.extend(schema);
        }
        parameter
    });
    flat.collect()
}
