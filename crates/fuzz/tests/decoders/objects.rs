//! Objects in JSON, YAML and protobuf, and the rules of their kinds.

use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use schema::{FieldValidation, rules};
use serde_json::Value;
use skiff_fuzz::{campaign, mutate, object};

use crate::{damaged, frugal, kinds, of_kind, some};

const MODES: [FieldValidation; 3] =
    [FieldValidation::Ignore, FieldValidation::Warn, FieldValidation::Strict];

/// What one byte of JSON may become: an empty object in a list is three bytes, and its value has room for more.
const PARSED: usize = 64;

#[test]
fn json_is_refused_or_canonical() {
    let kinds = kinds();
    campaign("json", 1500, |rng| {
        let (kind, _, value) = some(rng, &kinds);
        let body = damaged(rng, &value);
        let mode = *MODES.choose(rng).expect("modes");
        match frugal(body.len(), PARSED, || schema::decode(&kind, &body, mode)) {
            Ok(decoded) => {
                let again = schema::decode_value(&kind, &decoded.value, FieldValidation::Strict)
                    .expect("decoded before");
                assert_eq!(again.value, decoded.value, "{kind:?}");
                let text = decoded.value.to_string();
                let again = schema::decode(&kind, text.as_bytes(), FieldValidation::Strict)
                    .expect("decoded before");
                assert_eq!(again.value, decoded.value, "{kind:?}");
            }
            Err(error) => {
                assert!(!error.0.is_empty() && error.0.len() < 2 * body.len() + 1000, "{error}")
            }
        }
        let _ = schema::decode::parse(&body);
    });
}

#[test]
fn rules_hold_for_whatever_decodes() {
    let kinds = kinds();
    campaign("rules", 1500, |rng| {
        let (kind, of, value) = some(rng, &kinds);
        let old = schema::decode_value(&kind, &value, FieldValidation::Ignore);
        let new = mutate::json(rng, &value);
        let new = schema::decode_value(&kind, &new, FieldValidation::Ignore);
        let (Ok(mut old), Ok(mut new)) = (old, new) else { return };
        for value in [&mut old.value, &mut new.value] {
            rules::default(&kind, value);
            let once = value.clone();
            rules::default(&kind, value);
            assert_eq!(*value, once, "{kind:?}: defaults are set once");
            let _ = rules::prepare_create(&kind, value);
        }
        rules::prepare_update(&kind, &mut new.value, &old.value);
        rules::prepare_status(&kind, &mut new.value.clone(), &old.value);
        let (new, old) = (new.value, old.value);
        let errors = [
            rules::validate(&kind, &new),
            rules::validate_update(&kind, &new, &old),
            rules::validate_status(&kind, &new, &old),
        ];
        for error in errors.iter().flatten() {
            assert!(!error.to_string().is_empty(), "{kind:?}: {error:?}");
        }
        let _ = (rules::warnings(&kind, &new, Some(&old)), rules::status_warnings(&kind, &new));
        let text = mutate::text(rng, &["web", "a.b-c"]);
        let _ = (rules::check_name(&kind, &text, false), rules::check_name(&kind, &text, true));
        assert!(!object::places(of, &new).is_empty());
    });
}

#[test]
fn yaml_is_refused_or_json() {
    let kinds = kinds();
    campaign("yaml", 800, |rng| {
        let (_, _, value) = some(rng, &kinds);
        let json = value.to_string();
        let yaml = codec::yaml::from_json(json.as_bytes()).expect("JSON");
        let back = codec::yaml::to_json(yaml.as_bytes()).expect("what was written");
        let back: Value = serde_json::from_slice(&back).expect("JSON");
        assert_eq!(back, value, "{yaml}");
        let body = mutate::bytes(rng, &[yaml.into_bytes()]);
        if let Ok(json) = frugal(body.len(), PARSED, || codec::yaml::to_json(&body)) {
            let read: Result<Value, _> = serde_json::from_slice(&json);
            assert!(
                read.is_ok(),
                "{:?} of {:?}",
                String::from_utf8_lossy(&json),
                String::from_utf8_lossy(&body)
            );
        }
    });
}

#[test]
fn protobuf_is_refused_or_json() {
    let kinds: Vec<_> = kinds()
        .into_iter()
        .filter(|(kind, _)| codec::protobuf::serves(&kind.api_version(), &kind.kind))
        .collect();
    assert!(kinds.len() > 100, "{}", kinds.len());
    campaign("protobuf", 1500, |rng| {
        let (kind, of, value) = some(rng, &kinds);
        let decoded =
            schema::decode_value(&kind, &value, FieldValidation::Ignore).expect("of its kind");
        let body =
            codec::protobuf::object(decoded.value.to_string().as_bytes()).expect("has a form");
        let back = codec::protobuf::to_json(&body).expect("what was written");
        let back = schema::decode(&kind, &back, FieldValidation::Strict).expect("of its kind");
        let again = codec::protobuf::object(back.value.to_string().as_bytes()).expect("has a form");
        // Empty bytes are written, and read as nothing.
        let read = |body: &[u8]| codec::protobuf::to_json(body).expect("what was written");
        assert_eq!(read(&again), read(&body), "{}", decoded.value);

        let other = of_kind(rng, &kind, of).to_string();
        let other = codec::protobuf::object(other.as_bytes()).unwrap_or_default();
        let body = mutate::bytes(rng, &[body, other]);
        let _ = codec::protobuf::declared(&body);
        let Ok(json) = frugal(body.len(), PARSED, || codec::protobuf::to_json(&body)) else {
            return;
        };
        let _: Value = serde_json::from_slice(&json).expect("JSON");
        // A time or a number may be read that is written in no object.
        if let Ok(written) = codec::protobuf::object(&json) {
            let read = codec::protobuf::to_json(&written).expect("what was written");
            let written_again = codec::protobuf::object(&read).expect("what was read");
            assert_eq!(written_again, written);
        }
        let _ =
            codec::protobuf::to_json_as(&mutate::bytes(rng, &[written_prefix()]), ("v1", "Pod"));
    });
}

fn written_prefix() -> Vec<u8> {
    b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x1a\x0a\x18\x0a\x03web\x12\x00\x1a\x07default\x5a\x06\x0a\x01a\x12\x01b".to_vec()
}

#[test]
fn lists_and_partial_objects_of_anything() {
    let kinds = kinds();
    campaign("partial", 300, |rng| {
        let (_, _, value) = some(rng, &kinds);
        let body = damaged(rng, &value);
        let _ = codec::partial::partial(&body, codec::MetaVersion::V1);
        let _ = codec::protobuf::object(&body);
        let _ = codec::protobuf::item(&body, "v1", "Pod");
        let _ = codec::yaml::from_json(&body);
        if rng.random_bool(0.2) {
            let _ = codec::yaml::to_json(&body);
        }
    });
}
