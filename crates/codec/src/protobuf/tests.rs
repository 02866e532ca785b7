use serde_json::{Value, json};

use super::table::{Field, Kind, Presence, Special};
use super::*;

/// A field: number, wire type 2, length, bytes.
fn field(number: u32, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    wire::bytes(&mut out, number, bytes.as_ref());
    out
}

fn number(number: u32, value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    wire::number(&mut out, number, value);
    out
}

fn body(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let types = [field(1, version), field(2, kind)].concat();
    [MAGIC.to_vec(), field(1, types), field(2, raw)].concat()
}

fn read(version: &str, kind: &str, raw: &[u8]) -> Value {
    serde_json::from_slice(&to_json(&body(version, kind, raw)).unwrap()).unwrap()
}

#[test]
fn a_service_with_inlined_and_special_messages() {
    let metadata =
        [field(1, "web"), field(8, []), field(11, [field(1, "a"), field(2, "")].concat())].concat();
    let target = [number(1, 1), number(2, 0), field(3, "http")].concat();
    let port = [field(1, ""), number(3, 80), field(4, target), number(5, 0)].concat();
    let raw = [field(1, metadata), field(2, field(1, port)), field(3, [])].concat();
    let expected = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "labels": {"a": ""}},
        "spec": {"ports": [{"port": 80, "targetPort": "http"}]},
        "status": {},
    });
    assert_eq!(read("v1", "Service", &raw), expected);
}

#[test]
fn a_pods_volume_source_stands_beside_its_name() {
    let volume = [field(1, "v"), field(2, field(2, []))].concat();
    let raw = field(2, field(1, volume));
    assert_eq!(read("v1", "Pod", &raw)["spec"]["volumes"], json!([{"name": "v", "emptyDir": {}}]));
}

#[test]
fn zeros_that_mean_something_stay() {
    // A pointer may point to zero, a number that is none holds nothing then.
    let raw = field(2, [number(1, 0), number(5, 0)].concat());
    assert_eq!(read("apps/v1", "Deployment", &raw)["spec"], json!({"replicas": 0}));
    assert_eq!(read("apps/v1", "DeleteOptions", &number(1, 0))["gracePeriodSeconds"], 0);
    let claim = field(2, field(5, ""));
    let claim = read("v1", "PersistentVolumeClaim", &claim);
    assert_eq!(claim["spec"]["storageClassName"], "");
}

#[test]
fn times_and_negative_numbers() {
    let metadata = field(8, number(1, 1_700_000_000));
    let raw = [field(1, metadata), number(2, -5)].concat();
    let class = read("scheduling.k8s.io/v1", "PriorityClass", &raw);
    assert_eq!(class["metadata"]["creationTimestamp"], "2023-11-14T22:13:20Z");
    assert_eq!(class["value"], -5);
    let lease = json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {},
        "spec": {"renewTime": "1969-12-31T23:59:58.500000Z"}});
    assert_eq!(there_and_back(&lease), lease);
}

#[test]
fn what_is_not_said_is_taken_for_granted() {
    let bare = [MAGIC.to_vec(), field(2, field(1, field(1, "a")))].concat();
    let object: Value =
        serde_json::from_slice(&to_json_as(&bare, ("v1", "ConfigMap")).unwrap()).unwrap();
    assert_eq!(object, json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}}));
}

#[test]
fn damage_is_refused() {
    let refused = |bytes: &[u8]| to_json(bytes).unwrap_err();
    assert_eq!(refused(b"{}"), ProtobufError::Prefix);
    assert_eq!(refused(MAGIC), ProtobufError::Damaged("empty body"));
    assert!(matches!(refused(&body("v1", "Nothing", &[])), ProtobufError::Kind { .. }));
    for damaged in [&[0x0a, 0xff][..], &[0x0a, 5, 1], &[0x0b], &[0xff; 11]] {
        let error = refused(&body("v1", "Pod", damaged));
        assert!(matches!(error, ProtobufError::Damaged(_)), "{damaged:?}");
    }
    let deep = (0..200).fold(Vec::new(), |inner, _| field(28, inner));
    let schema = field(2, field(7, field(4, field(1, deep))));
    let error = refused(&body("apiextensions.k8s.io/v1", "CustomResourceDefinition", &schema));
    assert_eq!(error, ProtobufError::Damaged("nested too deep"));
}

/// What holds nothing is written where it cannot be absent, as Go's structs are.
#[test]
fn a_written_object_has_all_that_cannot_be_absent() {
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"},
        "data": {"b": "2", "a": "1"}, "binaryData": {"x": "AAE="}});
    let metadata = [
        field(1, "a"),
        field(2, ""),
        field(3, ""),
        field(4, ""),
        field(5, ""),
        field(6, ""),
        number(7, 0),
        field(8, ""),
    ];
    let entry = |key: &str, value: &[u8]| [field(1, key), field(2, value)].concat();
    let raw = [
        field(1, metadata.concat()),
        field(2, entry("a", b"1")),
        field(2, entry("b", b"2")),
        field(3, entry("x", &[0, 1])),
    ];
    let expected = [body("v1", "ConfigMap", &raw.concat()), vec![0x1a, 0, 0x22, 0]].concat();
    assert_eq!(object(map.to_string().as_bytes()).unwrap(), expected);
}

#[test]
fn json_that_does_not_fit_is_named() {
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "spec": {"containers": [{"name": 5}]}});
    let error = object(pod.to_string().as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "field \"spec.containers.name\" holds another type");
}

#[test]
fn a_list_in_pieces_is_one_whole() {
    let config = |name: usize| json!({"metadata": {"name": name.to_string()}, "data": {"k": "v".repeat(300)}});
    let configs: Vec<Value> = (0..500).map(config).collect();
    let items = configs
        .iter()
        .map(|config| Bytes::from(item(config.to_string().as_bytes(), "v1", "ConfigMap").unwrap()));
    let items: Vec<Bytes> = items.collect();
    let meta = ListMeta {
        resource_version: "7".to_owned(),
        continue_token: "next".to_owned(),
        remaining_item_count: Some(3),
    };
    let chunks = list("v1", "ConfigMapList", &meta, &items).unwrap();
    assert!(chunks.len() > 2);
    let whole = chunks.concat();
    let expected = json!({"kind": "ConfigMapList", "apiVersion": "v1",
        "metadata": {"resourceVersion": "7", "continue": "next", "remainingItemCount": 3}, "items": configs});
    assert_eq!(whole, object(expected.to_string().as_bytes()).unwrap());
    let read: Value = serde_json::from_slice(&to_json(&whole).unwrap()).unwrap();
    assert_eq!(read, expected);
}

#[test]
fn a_frame_is_preceded_by_its_length() {
    let frame = frame("ADDED", b"object");
    let event = [field(1, "ADDED"), field(2, field(1, "object"))].concat();
    assert_eq!(frame, [vec![0, 0, 0, u8::try_from(event.len()).unwrap()], event].concat());
}

fn there_and_back(value: &Value) -> Value {
    let text = value.to_string();
    let bytes = object(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
    let read = to_json(&bytes).unwrap_or_else(|error| panic!("{error}: {text}"));
    serde_json::from_slice(&read).unwrap()
}

/// Makes objects of any kind, in the form in which the reference implementation shows them.
struct Maker(u64);

impl Maker {
    fn below(&mut self, most: u64) -> u64 {
        // Knuth's linear congruential generator.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn fill(&mut self, message: MessageId, object: &mut Map<String, Value>, depth: u64) {
        for field in TABLE.fields(message) {
            match &field.kind {
                Kind::Message(inner) if field.is_inline() => self.fill(*inner, object, depth),
                kind => {
                    if let Some(value) = self.field(field, kind, depth) {
                        object.insert(field.name.to_owned(), value);
                    }
                }
            }
        }
    }

    fn field(&mut self, field: &Field, kind: &Kind, depth: u64) -> Option<Value> {
        if field.presence != Presence::Shown && (depth > 5 || self.below(2) == 0) {
            return None;
        }
        Some(match kind {
            Kind::List(kind) => {
                let items = (0..=self.below(2)).map(|_| self.value(kind, depth, true));
                items.collect::<Vec<Value>>().into()
            }
            Kind::Map(kind) => {
                let entries = (0..=self.below(3))
                    .map(|at| (format!("key-{at}"), self.value(kind, depth, true)));
                entries.collect::<Map<String, Value>>().into()
            }
            kind => self.value(kind, depth, field.presence != Presence::Hidden),
        })
    }

    fn value(&mut self, kind: &Kind, depth: u64, zero: bool) -> Value {
        let zero = zero && self.below(4) == 0;
        match kind {
            Kind::String | Kind::Bytes if zero => "".into(),
            Kind::String => ["a", "ünïcödé", "\"quoted\"\n", "x y"]
                [usize::try_from(self.below(4)).unwrap()]
            .into(),
            Kind::Bytes => ["AA==", "AQI=", "////"][usize::try_from(self.below(3)).unwrap()].into(),
            Kind::Double if zero => json!(0.0),
            Kind::Int32 | Kind::Int64 if zero => json!(0),
            Kind::Int32 => [1, -1, 127, 128, i32::MAX, i32::MIN]
                [usize::try_from(self.below(6)).unwrap()]
            .into(),
            Kind::Int64 => {
                [1, -1, 300, i64::MAX, i64::MIN][usize::try_from(self.below(5)).unwrap()].into()
            }
            Kind::Double => json!([0.5, -1e300, 3.25][usize::try_from(self.below(3)).unwrap()]),
            Kind::Boolean => (!zero).into(),
            Kind::Message(inner) => {
                let mut object = Map::new();
                self.fill(*inner, &mut object, depth + 1);
                object.into()
            }
            Kind::Special(special) => self.special(*special, depth),
            Kind::List(_) | Kind::Map(_) => unreachable!("no list is in a list"),
        }
    }

    fn special(&mut self, special: Special, depth: u64) -> Value {
        let schema = |maker: &mut Self| {
            let mut object = Map::new();
            maker.fill(TABLE.schema, &mut object, depth + 3);
            Value::from(object)
        };
        let first = self.below(2) == 0;
        match special {
            Special::Quantity => {
                ["0", "100m", "1Gi"][usize::try_from(self.below(3)).unwrap()].into()
            }
            Special::IntOrString if first => {
                json!([0, 8080, -1][usize::try_from(self.below(3)).unwrap()])
            }
            Special::IntOrString => {
                ["", "http", "25%"][usize::try_from(self.below(3)).unwrap()].into()
            }
            Special::Time => "2026-11-24T01:02:03Z".into(),
            Special::MicroTime => "2026-11-24T01:02:03.000450Z".into(),
            Special::Json => json!({"f:metadata": {"z": [1, -2.5, null, true], "a": "\u{1}"}}),
            Special::Strings => json!(["one", ""]),
            Special::SchemaOrArray if first => json!([schema(self), schema(self)]),
            Special::SchemaOrBoolean if first => self.below(2).eq(&0).into(),
            Special::SchemaOrStrings if first => json!(["a"]),
            Special::SchemaOrArray | Special::SchemaOrBoolean | Special::SchemaOrStrings => {
                schema(self)
            }
        }
    }

    fn object(&mut self, version: &str, kind: &str) -> Value {
        let mut object = Map::new();
        object.insert("kind".into(), kind.into());
        object.insert("apiVersion".into(), version.into());
        self.fill(message_of(version, kind).unwrap(), &mut object, 0);
        object.into()
    }
}

/// Every kind that a body can hold.
fn kinds() -> Vec<(&'static str, &'static str)> {
    let mut kinds: Vec<_> = TABLE.kinds().collect();
    kinds.sort_unstable();
    assert!(kinds.len() > 120, "{}", kinds.len());
    kinds
}

#[test]
fn every_kind_survives_the_way_there_and_back() {
    let mut maker = Maker(1);
    for (version, kind) in kinds() {
        for _ in 0..12 {
            let object = maker.object(version, kind);
            assert_eq!(there_and_back(&object), object, "{version} {kind}");
        }
    }
}

/// Damaged bodies of every kind are refused or read as something else, and what was read can be written.
#[test]
fn no_bytes_do_harm() {
    let mut maker = Maker(2);
    for (version, kind) in kinds() {
        let bytes = object(maker.object(version, kind).to_string().as_bytes()).unwrap();
        for _ in 0..40 {
            let mut damaged = bytes.clone();
            for _ in 0..=maker.below(4) {
                let at = usize::try_from(maker.below(damaged.len() as u64)).unwrap();
                match maker.below(4) {
                    0 => damaged.truncate(at.max(5)),
                    1 => _ = damaged.remove(at),
                    2 => damaged.insert(at, maker.below(256) as u8),
                    _ => damaged[at] = maker.below(256) as u8,
                }
            }
            if let Ok(json) = to_json_as(&damaged, (version, kind)) {
                let read: Value = serde_json::from_slice(&json).unwrap();
                let written = object(&json).unwrap_or_else(|error| panic!("{error}: {read}"));
                assert!(to_json(&written).is_ok(), "{read}");
            }
        }
    }
}

/// Against the reference implementation's own pairs of JSON and protobuf.
#[test]
#[ignore = "needs a directory of Kubernetes' round-trip data in SKIFF_ROUNDTRIP"]
fn what_is_written_is_what_the_reference_writes() {
    let directory = std::path::PathBuf::from(std::env::var("SKIFF_ROUNDTRIP").unwrap());
    let (mut compared, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // Those are what a later version makes of it.
        if !name.ends_with(".json") || name.contains("after_roundtrip") {
            continue;
        }
        let json = std::fs::read(&path).unwrap();
        let expected = std::fs::read(path.with_extension("pb")).unwrap();
        let value: Value = serde_json::from_slice(&json).unwrap();
        let text = |name: &str| value[name].as_str().unwrap_or_default();
        if !serves(text("apiVersion"), text("kind")) {
            continue;
        }
        compared += 1;
        match object(&json) {
            Ok(written) if written == expected => {}
            Ok(_) => wrong.push(format!("{name}: written otherwise")),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
        match to_json(&expected) {
            Ok(read) if serde_json::from_slice::<Value>(&read).unwrap() == value => {}
            Ok(read) => wrong.push(format!("{name}: read as {}", String::from_utf8_lossy(&read))),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {compared}: {}", wrong.len(), wrong.join("\n"));
    assert!(compared > 50, "{compared}");
}
