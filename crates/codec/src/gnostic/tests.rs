//! The encoded form, read back piece by piece.

use serde_json::json;

use super::*;

/// The fields of a message: numbers with their contents.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let number = |bytes: &mut &[u8]| {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let (first, rest) = bytes.split_first().expect("a number");
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            shift += 7;
            if first & 0x80 == 0 {
                return value;
            }
        }
    };
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let tag = number(&mut bytes);
        let value = number(&mut bytes);
        if tag & 7 == 0 {
            out.push((tag >> 3, vec![u8::try_from(value).expect("small")]));
        } else {
            let (content, rest) = bytes.split_at(usize::try_from(value).expect("a length"));
            bytes = rest;
            out.push((tag >> 3, content.to_vec()));
        }
    }
    out
}

/// The content at a path of field numbers.
fn at(bytes: &[u8], path: &[u64]) -> Vec<u8> {
    let Some((first, rest)) = path.split_first() else { return bytes.to_vec() };
    let found = fields(bytes).into_iter().find(|(number, _)| number == first);
    at(&found.unwrap_or_else(|| panic!("no field {first} before {rest:?}")).1, rest)
}

#[test]
fn every_type_of_the_table_is_known() {
    for (message, fields) in MESSAGES.iter() {
        for (field, (_, kind)) in fields {
            let of = kind.rsplit('.').next().unwrap_or_default().trim_start_matches('[');
            let known = matches!(of, "s" | "b" | "d" | "a")
                || of.ends_with("Choice")
                || MESSAGES.contains_key(of);
            assert!(known, "{message}.{field}: {kind}");
        }
    }
}

#[test]
fn version_two_holds_kinds_and_parameters() {
    let kinds = json!([{"group": "apps", "version": "v1", "kind": "Deployment"}]);
    let document = json!({
        "swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1"},
        "definitions": {"D": {
            "type": "object", "x-kubernetes-group-version-kind": kinds,
            "properties": {"spec": {"$ref": "#/definitions/S", "default": {}}},
        }},
        "paths": {"/a": {"get": {
            "parameters": [{"in": "query", "name": "q", "type": "string"}, {"in": "body", "name": "body", "schema": {"$ref": "x"}}],
            "responses": {"200": {"description": "OK", "schema": {"type": "string"}}},
        }}},
    });
    let bytes = encode(OpenApiVersion::V2, &document);
    assert_eq!(at(&bytes, &[2, 1]), b"Kubernetes");
    assert_eq!(at(&bytes, &[9, 1, 1]), b"D");
    assert_eq!(at(&bytes, &[9, 1, 2, 22, 1]), b"object");
    assert_eq!(at(&bytes, &[9, 1, 2, 31, 1]), b"x-kubernetes-group-version-kind");
    assert_eq!(at(&bytes, &[9, 1, 2, 31, 2, 2]), kinds.to_string().into_bytes());
    assert_eq!(at(&bytes, &[9, 1, 2, 25, 1, 2, 1]), b"#/definitions/S");
    let get = at(&bytes, &[8, 2, 2, 2]);
    assert_eq!(at(&get, &[8, 1, 2, 3, 4]), b"q");
    let body = &fields(&get).into_iter().filter(|(number, _)| *number == 8).nth(1).expect("two").1;
    assert_eq!(at(body, &[1, 1, 5, 1]), b"x");
    assert_eq!(at(&get, &[9, 1, 2, 1, 2, 1, 22, 1]), b"string");
}

#[test]
fn version_three_tells_references_from_schemas() {
    let document = json!({
        "openapi": "3.0.0",
        "components": {"schemas": {"D": {"properties": {
            "a": {"allOf": [{"$ref": "#/x"}], "default": {}}, "b": {"type": "boolean", "default": false},
        }}}},
    });
    let bytes = encode(OpenApiVersion::V3, &document);
    let properties = at(&bytes, &[5, 1, 1, 2, 1, 31]);
    assert_eq!(at(&properties, &[1, 2, 1, 26, 2, 1]), b"#/x");
    let second = &fields(&properties)[1].1;
    assert_eq!(at(second, &[2, 1, 33, 2]), [0]);
}
