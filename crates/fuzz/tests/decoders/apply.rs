//! Applies, and the sets of fields that managers own, which clients send too.

use meta::GroupVersionKind;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use schema::FieldValidation;
use schema::apply::{self, Managed, Reset, Set, Versions, Writer};
use schema::types::Type;
use serde_json::{Value, json};
use skiff_fuzz::{campaign, mutate};

use crate::{damaged, frugal, kinds, some};

/// A kind in one version.
struct Kind(GroupVersionKind, &'static Type);

impl Versions for Kind {
    fn type_in(&self, api_version: &str) -> Option<&'static Type> {
        (api_version == self.0.api_version()).then_some(self.1)
    }

    fn convert(&self, object: &Value, _: &str, _: &str) -> Value {
        object.clone()
    }
}

#[test]
fn applies_end_in_an_object_or_an_error() {
    let kinds = kinds();
    campaign("applies", 600, |rng| {
        let (kind, of, value) = some(rng, &kinds);
        let kind = Kind(kind, of);
        let api_version = kind.0.api_version();
        let reset = Reset::These(Set::of_fields(&[&["status"]]));
        let writer = |manager| Writer {
            manager,
            subresource: "",
            api_version: &api_version,
            now: "2026-01-02T03:04:05Z",
            reset: &reset,
            versions: &kind,
        };
        let (mut live, mut managed) = (Value::Null, Managed::default());
        for _ in 0..4 {
            let mut given = mutate::json(rng, &value);
            // Whoever asks has seen to it.
            if given.is_object() && given["metadata"]["name"] != "a" {
                given["metadata"] = json!({"name": "a"});
            }
            if rng.random_bool(0.3) {
                let Ok(new) = schema::decode_value(&kind.0, &given, FieldValidation::Ignore) else {
                    continue;
                };
                let old = if live.is_null() { json!({}) } else { live.clone() };
                let before = managed.clone();
                managed =
                    writer("editor").update(&old, &new.value, || before.clone()).unwrap_or(before);
                live = new.value;
                continue;
            }
            let (manager, force) = (*["a", "b"].choose(rng).expect("managers"), rng.random());
            let size = given.to_string().len() + live.to_string().len();
            let applied =
                frugal(size, 200, || writer(manager).apply(&live, &given, managed.clone(), force));
            let Ok(applied) = applied else { continue };
            let again =
                writer(manager).apply(&applied.object, &given, applied.managed.clone(), force);
            let again = again.expect("what was applied applies again");
            assert_eq!(again.object, applied.object, "{:?}: an apply has an effect once", kind.0);
            // Whoever applies nothing to what nobody manages is told, each time, that it was there before.
            if !applied.managed.is_empty() {
                assert_eq!(again.managed.clone().to_json(), applied.managed.clone().to_json());
            }
            let read = Managed::read(&applied.managed.clone().to_json());
            assert_eq!(
                read.to_json(),
                applied.managed.clone().to_json(),
                "managers survive being written"
            );
            (live, managed) = (applied.object, applied.managed);
        }
    });
}

#[test]
fn sets_of_fields_are_refused_or_read_the_same_again() {
    let kinds = kinds();
    campaign("sets of fields", 800, |rng| {
        let (kind, of, value) = some(rng, &kinds);
        let set = apply::mentioned(of, &value).to_json();
        let fields: Value = serde_json::from_str(&set).expect("JSON");
        let entries = json!([{"manager": "m", "operation": "Apply", "apiVersion": kind.api_version(),
            "time": "2026-01-02T03:04:05Z", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
        let entries = mutate::json(rng, &entries);
        if let Ok(managed) = Managed::of_value(&entries) {
            let written = managed.to_json();
            assert_eq!(Managed::read(&written).to_json(), written);
        }
        let body = damaged(rng, &fields);
        if let Ok(read) = frugal(body.len(), 100, || serde_json::from_slice::<Set>(&body)) {
            let written = read.to_json();
            let again: Set = serde_json::from_str(&written).expect("what was written");
            assert_eq!(again, read, "{written}");
            for path in read.paths() {
                assert!(read.has(&path));
                let _ = apply::printed(&path);
            }
        }
        let _ = apply::check(of, &mutate::json(rng, &value));
    });
}
