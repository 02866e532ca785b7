//! Inputs that are small and would become large, or deep, or slow: each as long as a body may be.

use std::fmt::Write as _;
use std::time::Instant;

use meta::{GroupVersionKind, Quantity, Selector};
use schema::apply::Set;
use schema::{FieldValidation, rules, types};
use serde_json::{Value, json};
use skiff_fuzz::{alone, memory, mutate};

/// As long as a body may be.
const MOST: usize = 3 << 20;
/// What the reading of one may hold at most, in bytes.
const HELD: usize = 640 << 20;

fn pod() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "Pod")
}

/// Runs work on one input, which may neither take for ever nor hold very much.
fn bounded<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let (done, held) = alone(name, || memory::peak(work));
    println!("{name}: {} MiB, {:?}", held >> 20, begun.elapsed());
    assert!(held < HELD, "{name}: {held}");
    done
}

fn filled(before: &str, unit: &str, after: &str) -> String {
    let times = (MOST - before.len() - after.len()) / unit.len();
    format!("{before}{}{after}", unit.repeat(times))
}

#[test]
fn depth_is_bounded() {
    let deep =
        |open: &str, close: &str| format!("{}{}", open.repeat(MOST / 8), close.repeat(MOST / 8));
    for body in
        [deep("[", "]"), deep("{\"a\":", "}"), "[".repeat(MOST), "{\"spec\":".repeat(MOST / 8)]
    {
        bounded("deep JSON", || {
            assert!(schema::decode(&pod(), body.as_bytes(), FieldValidation::Warn).is_err())
        });
        bounded("deep patch", || {
            assert!(schema::json_patch(&mut json!({}), body.as_bytes()).is_err());
            assert!(schema::decode::parse(body.as_bytes()).is_err());
            assert!(serde_json::from_slice::<Set>(body.as_bytes()).is_err());
        });
        bounded("deep YAML", || assert!(codec::yaml::to_json(body.as_bytes()).is_err()));
    }
    for unit in ["- ", "? ", "[", "{a: ", "- - - ? "] {
        let body = unit.repeat(MOST / unit.len());
        bounded("deep YAML", || assert!(codec::yaml::to_json(body.as_bytes()).is_err()));
    }
    let mut message = Vec::new();
    while message.len() < MOST - 64 && message.len() < 1 << 18 {
        message = prefixed(0x12, &message);
    }
    let body = [b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod".as_slice(), &message].concat();
    let _ = bounded("deep protobuf", || codec::protobuf::to_json(&body));
    // As deep as JSON is read, everywhere that JSON is looked at.
    for depth in [100, 120, 126] {
        let mut value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"annotations": mutate::nested(depth)}});
        let _ = schema::decode_value(&pod(), &value, FieldValidation::Warn);
        schema::merge_patch(&mut value, &mutate::nested(depth));
    }
}

fn prefixed(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut length) = (vec![tag], bytes.len());
    while length > 0x7f {
        out.push(u8::try_from(length & 0x7f).expect("small") | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).expect("small"));
    out.extend_from_slice(bytes);
    out
}

#[test]
fn numbers_are_bounded() {
    let nines = "9".repeat(MOST - 100);
    for number in [
        nines.clone(),
        format!("-{nines}"),
        format!("0.{nines}"),
        format!("1e{nines}"),
        format!("1e-{nines}"),
    ] {
        for field in ["priority", "nodeName"] {
            let body = format!("{{\"spec\":{{\"{field}\":{number}}}}}");
            bounded("a long number", || {
                assert!(schema::decode(&pod(), body.as_bytes(), FieldValidation::Warn).is_err())
            });
        }
        let _ = bounded("a long quantity", || number.parse::<Quantity>());
        let _ = bounded("a long number in YAML", || {
            codec::yaml::to_json(format!("a: {number}\n").as_bytes())
        });
        let _ = bounded("a long number in a patch", || {
            schema::json_patch(
                &mut json!({"a": [1]}),
                format!("[{{\"op\":\"add\",\"path\":\"/a/{number}\",\"value\":1}}]").as_bytes(),
            )
        });
    }
}

#[test]
fn yaml_does_not_expand() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        writeln!(
            laughs,
            "a{level}: &a{level} [{}]",
            vec![format!("*a{}", level - 1); 9].join(", ")
        )
        .expect("text");
    }
    bounded("laughs", || assert!(codec::yaml::to_json(laughs.as_bytes()).is_err()));
    // Few events, each of them long.
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(MOST - 4000), vec!["*a"; 900].join(","));
    let _ = bounded("long aliases", || codec::yaml::to_json(long.as_bytes()));
    let merged = format!(
        "a: &a {{{}}}\nb: [{}]\n",
        (0..900).map(|key| format!("k{key}: v")).collect::<Vec<_>>().join(", "),
        vec!["{<<: *a}"; 900].join(",")
    );
    let _ = bounded("merge keys", || codec::yaml::to_json(merged.as_bytes()));
    for unit in [
        "a: b\n",
        "- a\n",
        "---\n",
        "#\n",
        "&a a: *a\n",
        "!x y: z\n",
        "? a\n: b\n",
        "\"\\x41\": b\n",
        "a\n\n",
    ] {
        let body = unit.repeat(MOST / unit.len());
        let _ = bounded(&format!("YAML of {unit:?}"), || codec::yaml::to_json(body.as_bytes()));
    }
}

/// Bodies that are all of the smallest parts of something, and what is made of them on the way to an answer.
#[test]
fn many_small_parts_are_bounded() {
    let bodies = [
        ("volumes", filled("{\"spec\":{\"volumes\":[", "{},", "{}]}}")),
        ("tolerations", filled("{\"spec\":{\"tolerations\":[", "{},", "{}]}}")),
        (
            "numbers",
            filled("{\"spec\":{\"securityContext\":{\"supplementalGroups\":[", "1,", "1]}}}"),
        ),
        (
            "nulls",
            filled("{\"spec\":{\"nodeSelector\":{\"a\":null,", "\"a\":null,", "\"a\":null}}}"),
        ),
        ("unknown fields", filled("{", "\"a\":1,", "\"a\":1}")),
        ("owners", filled("{\"metadata\":{\"ownerReferences\":[", "{},", "{}]}}")),
        (
            "any",
            filled("{\"metadata\":{\"managedFields\":[{\"fieldsV1\":{\"a\":[", "[],", "[]]}}]}}"),
        ),
    ];
    for (name, body) in bodies {
        let decoded = bounded(&format!("many {name}"), || {
            schema::decode(&pod(), body.as_bytes(), FieldValidation::Warn)
        });
        let Ok(mut decoded) = decoded else { continue };
        // Defaults write out what is only meant, which takes more than is allowed here.
        rules::default(&pod(), &mut decoded.value);
        let errors =
            bounded(&format!("errors of many {name}"), || rules::validate(&pod(), &decoded.value));
        println!("{name}: {} errors", errors.len());
        bounded(&format!("warnings of many {name}"), || {
            drop(rules::warnings(&pod(), &decoded.value, None))
        });
    }
    let empty = prefixed(0x12, &prefixed(0x12, &[]).repeat((MOST - 64) / 2));
    let body = [b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod".as_slice(), &prefixed(0x12, &empty)].concat();
    let json =
        bounded("many empty messages", || codec::protobuf::to_json(&body)).expect("messages");
    let _ = bounded("many empty objects", || schema::decode(&pod(), &json, FieldValidation::Warn));
}

/// What could be compared with everything else.
#[test]
fn patches_take_no_more_than_they_are_long() {
    let of = types::by_kind("", "v1", "ConfigMap").expect("a kind");
    let keys: Vec<String> = (0..150_000).map(|key| format!("k{key:06}")).collect();
    let data: serde_json::Map<String, Value> =
        keys.iter().map(|key| (key.clone(), "v".into())).collect();
    let object = json!({"data": data});
    let patch = json!({"data": {"$retainKeys": keys.clone()}});
    let mut kept = object.clone();
    bounded("many kept keys", || schema::strategic_merge_patch(of, &mut kept, patch))
        .expect("a patch");
    assert_eq!(kept, object);
    let mut patch = json!({"data": data});
    patch["data"]["$retainKeys"] = keys.clone().into();
    bounded("many kept keys of a patch", || {
        schema::strategic_merge_patch(of, &mut json!({}), patch)
    })
    .expect("a patch");

    let pod = types::by_kind("", "v1", "Pod").expect("a kind");
    let named = |prefix: &str| {
        (0..60_000).map(|n| json!({"name": format!("{prefix}{n}")})).collect::<Vec<_>>()
    };
    let mut live = json!({"spec": {"containers": named("a")}});
    let order: Vec<_> = named("b").into_iter().chain(named("a").into_iter().rev()).collect();
    let patch = json!({"spec": {"containers": named("b"), "$setElementOrder/containers": order}});
    bounded("many ordered items", || schema::strategic_merge_patch(pod, &mut live, patch))
        .expect("a patch");
    let mut live = json!({"metadata": {"finalizers": (0..60_000).map(|n| format!("a/{n}")).collect::<Vec<_>>()}});
    let patch = json!({"metadata": {"finalizers": (30_000..90_000).map(|n| format!("a/{n}")).collect::<Vec<_>>(),
        "$deleteFromPrimitiveList/finalizers": (0..60_000).map(|n| format!("a/{n}")).collect::<Vec<_>>()}});
    bounded("many set items", || schema::strategic_merge_patch(pod, &mut live, patch))
        .expect("a patch");

    let mut operations = vec![json!({"op": "add", "path": "/a", "value": ["x".repeat(1024)]})];
    operations.extend((0..60).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})));
    let patch = Value::from(operations).to_string();
    bounded("doubling", || assert!(schema::json_patch(&mut json!({}), patch.as_bytes()).is_err()));
    let many = vec![1; 250_000];
    let operations = vec![json!({"op": "add", "path": "/a/0", "value": 1}); 10_000];
    let patch = Value::from(operations).to_string();
    bounded("insertions at the front", || {
        schema::json_patch(&mut json!({"a": many}), patch.as_bytes())
    })
    .expect("a patch");
    let operations = vec![json!({"op": "test", "path": "/a", "value": 1}); 10_000];
    let patch = Value::from(operations).to_string();
    bounded("tests", || {
        assert!(schema::json_patch(&mut json!({"a": vec![1; 250_000]}), patch.as_bytes()).is_err())
    });
}

#[test]
fn applied_sets_take_no_more_than_they_are_long() {
    let keys: Vec<String> = (0..100_000).rev().map(|key| format!("\"f:k{key:06}\":{{}}")).collect();
    let fields = format!("{{{}}}", keys.join(","));
    let set: Set = bounded("many fields", || serde_json::from_str(&fields)).expect("a set");
    bounded("many fields written", || assert_eq!(set.to_json().len(), fields.len()));
    let keys: Vec<String> = (0..30_000)
        .rev()
        .map(|key| format!("\"k:{{\\\"name\\\":\\\"{key}\\\",\\\"port\\\":{key}}}\":{{}}"))
        .collect();
    let fields = format!("{{{}}}", keys.join(","));
    let set: Set = bounded("many keys", || serde_json::from_str(&fields)).expect("a set");
    bounded("many keys together", || {
        let mut both = set.clone();
        both.add(set.clone());
        both.remove(&set.intersection(&both.clone()));
        assert!(both.is_empty());
    });
}

#[test]
fn selectors_take_no_more_than_they_are_long() {
    for unit in ["a,", "!", "a=b,", "a in (", "a in (b,c),", "(((", "a notin (b)", "="] {
        let text = unit.repeat((1 << 20) / unit.len());
        let _ = bounded(&format!("many {unit:?}"), || Selector::parse(&text));
        let _ = bounded(&format!("many fields {unit:?}"), || meta::FieldSelector::parse(&text));
    }
    let values: Vec<String> = (0..100_000).map(|value| format!("v{value}")).collect();
    let text = format!("a in ({})", values.join(","));
    let selector = bounded("many values", || Selector::parse(&text)).expect("a selector");
    let _ = bounded("many values printed", || selector.to_string());
}
