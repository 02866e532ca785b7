//! Runs the fixtures in `fixtures.txt`, and the properties of applying.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::types::{self, Type};

/// A kind with one version.
#[derive(Clone)]
struct Kind {
    version: String,
    of: &'static Type,
}

impl Kind {
    fn new(version: &str, kind: &str) -> Self {
        let (group, short) = version.split_once('/').unwrap_or(("", version));
        let of = types::by_kind(group, short, kind).expect("a built-in kind");
        Self { version: version.to_owned(), of }
    }
}

impl Versions for Kind {
    fn type_in(&self, api_version: &str) -> Option<&'static Type> {
        (api_version == self.version).then_some(self.of)
    }

    fn convert(&self, object: &Value, _: &str, _: &str) -> Value {
        object.clone()
    }
}

/// An object that is applied to and updated.
struct World {
    kind: Kind,
    live: Value,
    managed: Managed,
    clock: u32,
}

impl World {
    fn new(version: &str, kind: &str) -> Self {
        let kind = Kind::new(version, kind);
        Self { kind, live: Value::Null, managed: Managed::default(), clock: 0 }
    }

    fn with<T>(&mut self, manager: &str, run: impl FnOnce(&Writer<'_>, &mut Self) -> T) -> T {
        self.clock += 1;
        let (kind, now) = (self.kind.clone(), format!("2026-01-01T00:00:{:02}Z", self.clock % 60));
        let reset = Reset::These(Set::of_fields(&[&["status"]]));
        let writer = Writer {
            manager,
            subresource: "",
            api_version: &kind.version,
            now: &now,
            reset: &reset,
            versions: &kind,
        };
        run(&writer, self)
    }

    fn apply(&mut self, manager: &str, object: &Value, force: bool) -> Result<(), ApplyError> {
        self.with(manager, |writer, world| {
            let Applied { object, managed } =
                writer.apply(&world.live, object, world.managed.clone(), force)?;
            (world.live, world.managed) = (object, managed);
            Ok(())
        })
    }

    fn update(&mut self, manager: &str, object: Value) {
        self.with(manager, |writer, world| {
            let empty = json!({});
            let old = if world.live.is_null() { &empty } else { &world.live };
            let before = world.managed.clone();
            world.managed = writer.update(old, &object, || before).unwrap_or(world.managed.clone());
            world.live = object;
        });
    }

    /// One line a manager.
    fn managers(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .managed
            .entries
            .iter()
            .map(|entry| {
                format!("{} {:?} {}", entry.manager, entry.operation, entry.fields.to_json())
            })
            .collect();
        lines.sort();
        lines
    }

    fn fields(&self, manager: &str) -> Set {
        let found = self.managed.entries.iter().find(|entry| entry.manager == manager);
        found.map(|entry| entry.fields.clone()).unwrap_or_default()
    }
}

fn refusal(error: ApplyError) -> Vec<String> {
    match error {
        ApplyError::Typed(text) => text.lines().map(str::to_owned).collect(),
        ApplyError::Conflicts(conflicts) => {
            let printed =
                conflicts.iter().map(|one| format!("{}: {}", one.manager, printed(&one.path)));
            printed.collect()
        }
    }
}

fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|name, _| name != "apiVersion" && name != "kind");
        if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
            metadata.remove("name");
        }
        fields.retain(|name, value| name != "metadata" || value != &json!({}));
    }
    object
}

#[test]
fn fixtures() {
    let mut world = World::new("v1", "ConfigMap");
    let mut lines = include_str!("fixtures.txt")
        .lines()
        .filter(|line| {
            !line.trim().is_empty() && (!line.starts_with('#') || line.starts_with("##"))
        })
        .peekable();
    let (mut title, mut checked) = ("", 0);
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix("## ") {
            title = text;
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        if let ["kind", version, kind] = words[..] {
            world = World::new(version, kind);
            continue;
        }
        let mut body = String::new();
        while let Some(line) = lines.next_if(|line| line.starts_with('{') || line.starts_with(' '))
        {
            body.push_str(line);
        }
        let object: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{title}: {e}"));
        let refused = match words[..] {
            ["live"] => {
                world.live = object;
                Vec::new()
            }
            ["update", manager] => {
                world.update(manager, object);
                Vec::new()
            }
            ["apply", manager, ref force @ ..] => {
                let done = world.apply(manager, &object, !force.is_empty());
                done.err().map(refusal).unwrap_or_default()
            }
            _ => panic!("{title}: {line:?} is no step"),
        };
        let (mut managers, mut problems) = (Vec::new(), Vec::new());
        while let Some(line) = lines.next_if(|line| line.starts_with('=')) {
            checked += 1;
            let text = line.get(3..).unwrap_or_default();
            match &line[..2] {
                "=>" => managers.push(text.to_owned()),
                "=!" => problems.push(text.to_owned()),
                _ => {
                    let expected: Value = serde_json::from_str(text).expect(title);
                    assert_eq!(bare(&world.live), expected, "{title}: {line}");
                }
            }
        }
        assert_eq!(refused, problems, "{title}: {}", words.join(" "));
        if !managers.is_empty() {
            assert_eq!(world.managers(), managers, "{title}: {}", words.join(" "));
        }
    }
    assert!(checked > 50, "{checked}");
}

#[test]
fn times_move_only_when_something_changes() {
    let mut world = World::new("v1", "ConfigMap");
    let object = json!({"data": {"k": "v"}});
    world.apply("a", &object, false).expect("applies");
    let before = world.managed.clone();
    world.apply("a", &object, false).expect("applies");
    assert_eq!(world.managed, before);
    world.update("c", json!({"data": {"k": "v"}}));
    assert_eq!(world.managed, before);
    world.apply("a", &json!({"data": {"k": "w"}}), false).expect("applies");
    assert_ne!(world.managed.entries[0].time, before.entries[0].time);
    assert!(world.managed.same_but_times(&before));
}

#[test]
fn old_updaters_are_merged() {
    let mut world = World::new("v1", "ConfigMap");
    let mut data = Map::new();
    for index in 0..15 {
        data.insert(format!("k{index:02}"), json!("v"));
        world.update(&format!("m{index:02}"), json!({ "data": data }));
    }
    assert_eq!(world.managed.entries.len(), 10);
    let ancient = world.fields("ancient-changes");
    let expected =
        r#"{"f:data":{".":{},"f:k00":{},"f:k01":{},"f:k02":{},"f:k03":{},"f:k04":{},"f:k05":{}}}"#;
    assert_eq!(ancient.to_json(), expected);
    assert_eq!(world.fields("m14").to_json(), r#"{"f:data":{"f:k14":{}}}"#);
}

#[test]
fn entries_are_written_in_order_and_read_again() {
    let text = concat!(
        r#"[{"manager":"b","operation":"Apply","apiVersion":"v1","time":"2026-01-01T00:00:02Z","#,
        r#""fieldsType":"FieldsV1","fieldsV1":{"f:a":{".":{},"i:3":{},"k:{\"x\":1,\"y\":\"z\"}":{},"v:true":{}}}},"#,
        r#"{"manager":"a","operation":"Update","apiVersion":"v1","#,
        r#""fieldsType":"FieldsV1","fieldsV1":{"f:b":{}},"subresource":"status"}]"#
    );
    let managed = Managed::read(text.as_bytes());
    assert_eq!(managed.entries.len(), 2);
    let mut backwards = managed;
    backwards.entries.reverse();
    // Steps are sorted by kind: keys, values, indexes.
    let expected = text.replace(
        r#""i:3":{},"k:{\"x\":1,\"y\":\"z\"}":{},"v:true":{}"#,
        r#""k:{\"x\":1,\"y\":\"z\"}":{},"v:true":{},"i:3":{}"#,
    );
    assert_eq!(String::from_utf8(backwards.to_json()).expect("text"), expected);
}

#[test]
fn unreadable_managers_are_told() {
    let told = |entry: Value| Managed::of_value(&json!([entry])).expect_err("unreadable");
    assert_eq!(told(json!({"operation": "Eat"})), "operation must be `Apply` or `Update`");
    assert_eq!(told(json!({"operation": "Apply"})), "apiVersion must not be empty");
    let entry = json!({"operation": "Apply", "apiVersion": "v1"});
    assert_eq!(told(entry), "missing fieldsType in managed fields entry 0");
    let fields = |fields: Value| json!({"operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields});
    assert_eq!(told(fields(json!({"x": {}}))), "key must be 2 characters long:");
    assert_eq!(told(fields(json!({"f-x": {}}))), "missing colon: f-x");
    assert!(Managed::of_value(&json!([fields(json!({"f:a": 1}))])).is_err());
    let unknown = Managed::of_value(&json!([fields(json!({"z:a": {}, "f:a": {}}))]));
    assert_eq!(unknown.expect("readable").entries[0].fields.to_json(), r#"{"f:a":{}}"#);
}

#[test]
fn a_filter_keeps_what_it_names() {
    let set: Set = serde_json::from_str(
        r#"{"f:spec":{"f:a":{},"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:resources":{"f:limits":{}}}}}}"#,
    )
    .expect("a set");
    let only = set.only(&[&["spec", "containers", "*", "resources"]]);
    assert_eq!(
        only.to_json(),
        r#"{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:resources":{"f:limits":{}}}}}}"#
    );
}

/// Text of few values, so that objects have much in common.
fn word() -> impl Strategy<Value = Value> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(Value::from)
}

fn words() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-d]", word(), 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

fn object_of(fields: Vec<(&'static str, Option<Value>)>) -> Value {
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(given.collect())
}

fn keyed(items: Vec<Value>, keys: &[&str]) -> Value {
    let mut seen = Vec::new();
    let unique = items.into_iter().filter(|item| {
        let key: Vec<Value> = keys.iter().map(|key| item[*key].clone()).collect();
        let new = !seen.contains(&key);
        seen.push(key);
        new
    });
    Value::Array(unique.collect())
}

prop_compose! {
    fn port()(number in 1..4_i32, protocol in prop::option::of(prop::sample::select(vec!["UDP", "SCTP"])), name in prop::option::of(word())) -> Value {
        object_of(vec![("containerPort", Some(number.into())), ("protocol", protocol.map(Value::from)), ("name", name)])
    }
}

prop_compose! {
    fn container()(
        name in word(), image in prop::option::of(word()),
        args in prop::option::of(prop::collection::vec(word(), 0..3)),
        ports in prop::option::of(prop::collection::vec(port(), 1..4)),
        limits in prop::option::of(words()),
    ) -> Value {
        object_of(vec![
            ("name", Some(name)), ("image", image), ("args", args.map(Value::Array)),
            ("ports", ports.map(|ports| keyed(ports, &["containerPort", "protocol"]))),
            ("resources", limits.map(|limits| json!({ "limits": limits }))),
        ])
    }
}

prop_compose! {
    // Empty lists of items are nobody's: there are none.
    fn pod()(
        labels in prop::option::of(words()),
        finalizers in prop::option::of(prop::collection::btree_set("[a-c]", 1..3)),
        containers in prop::option::of(prop::collection::vec(container(), 1..4)),
        node in prop::option::of(word()), selector in prop::option::of(words()),
    ) -> Value {
        let finalizers = finalizers.map(|set| set.into_iter().map(Value::from).collect());
        json!({
            "metadata": object_of(vec![("labels", labels), ("finalizers", finalizers)]),
            "spec": object_of(vec![
                ("containers", containers.map(|containers| keyed(containers, &["name"]))),
                ("nodeName", node), ("nodeSelector", selector),
            ]),
        })
    }
}

proptest! {
    #[test]
    fn sets_survive_being_written(object in pod()) {
        let set = mentioned(Kind::new("v1", "Pod").of, &object);
        let read: Set = serde_json::from_str(&set.to_json()).expect("a set");
        prop_assert_eq!(read, set);
    }

    #[test]
    fn sets_are_an_algebra(one in pod(), other in pod()) {
        let of = Kind::new("v1", "Pod").of;
        let (one, other) = (mentioned(of, &one), mentioned(of, &other));
        let (mut both, mut rest) = (one.clone(), one.clone());
        both.add(other.clone());
        rest.remove(&other);
        for path in both.paths() {
            prop_assert!(one.has(&path) || other.has(&path));
            prop_assert_eq!(one.intersection(&other).has(&path), one.has(&path) && other.has(&path));
            prop_assert_eq!(rest.has(&path), one.has(&path) && !other.has(&path));
        }
        rest.add(one.intersection(&other));
        prop_assert_eq!(rest, one);
    }

    #[test]
    fn comparing_tells_what_it_takes(old in pod(), new in pod()) {
        let of = Kind::new("v1", "Pod").of;
        prop_assert!(compare(of, &new, &new).is_empty());
        let diff = compare(of, &old, &new);
        let (changed, removed) = (diff.changed.clone(), diff.removed.clone());
        prop_assert!(changed.intersection(&removed).is_empty());
        let back = compare(of, &new, &old);
        // What comes one way goes the other.
        for path in removed.paths() {
            prop_assert!(back.changed.has(&path), "{}", printed(&path));
        }
    }

    #[test]
    fn applying_is_idempotent(live in pod(), object in pod(), other in pod()) {
        let mut world = World::new("v1", "Pod");
        world.update("c", live);
        world.apply("b", &other, true).expect("forced");
        world.apply("a", &object, true).expect("forced");
        let (live, managed) = (world.live.clone(), world.managed.clone());
        world.apply("a", &object, false).expect("nobody else owns it");
        prop_assert_eq!(&world.live, &live);
        prop_assert_eq!(&world.managed, &managed);
    }

    #[test]
    fn what_is_applied_holds(live in pod(), first in pod(), object in pod()) {
        let mut world = World::new("v1", "Pod");
        world.update("c", live);
        world.apply("a", &first, true).expect("forced");
        world.apply("a", &object, true).expect("forced");
        let of = world.kind.of;
        let merged = merge(of, &world.live, &object);
        prop_assert!(compare(of, &world.live, &merged).is_empty());
        let mut mentioned = mentioned(of, &object);
        mentioned.remove(&Set::of_fields(&[&["metadata"]]));
        prop_assert_eq!(world.fields("a"), mentioned);
    }

    #[test]
    fn managers_never_lose_what_they_own(ours in pod(), others in prop::collection::vec(pod(), 1..4)) {
        let mut world = World::new("v1", "Pod");
        world.apply("a", &ours, false).expect("nothing is there");
        let (of, own) = (world.kind.of, world.fields("a"));
        for (at, other) in others.iter().enumerate() {
            let (before, managed) = (world.live.clone(), world.managed.clone());
            match world.apply(&format!("o{}", at % 2), other, false) {
                Ok(()) => {}
                Err(ApplyError::Conflicts(conflicts)) => {
                    prop_assert!(!conflicts.is_empty());
                    prop_assert_eq!((&world.live, &world.managed), (&before, &managed));
                }
                Err(other) => panic!("{other:?}"),
            }
            // Without force, our fields stay ours and have our values.
            prop_assert_eq!(&world.fields("a"), &own);
            prop_assert!(compare(of, &world.live, &merge(of, &world.live, &ours)).is_empty());
        }
    }

    #[test]
    fn every_change_has_its_owner(steps in prop::collection::vec(pod(), 1..6)) {
        let mut world = World::new("v1", "Pod");
        for (at, object) in steps.into_iter().enumerate() {
            let empty = json!({});
            let old = if world.live.is_null() { empty } else { world.live.clone() };
            let manager = format!("m{}", at % 3);
            world.update(&manager, object.clone());
            let Diff { changed, removed } = compare(world.kind.of, &old, &object);
            for path in changed.paths().iter().filter(|path| path.len() > 1 || path[0].to_string() != ".metadata") {
                for entry in &world.managed.entries {
                    prop_assert_eq!(entry.fields.has(path), entry.manager == manager);
                }
            }
            for path in removed.paths() {
                prop_assert!(world.managed.entries.iter().all(|entry| !entry.fields.has(&path)));
            }
        }
    }
}
