//! Objects of every kind that is stored, valid and slightly broken, made from the table of fields: what answers them
//! has the right code, reason and path, and is complete.

mod judge;

use crate::minimal::{content, name};
use crate::support::{Answer, Client, Cluster};
use fuzz::object::{self, Place, places};
use fuzz::{Rng, campaign, mutate};
use http::Method;
use rand::seq::IndexedRandom as _;
use registry::Row;
use schema::types::{self, Of, Type};
use serde_json::{Value, json};

/// How bodies are sent.
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

/// What must come of a body.
enum Expected {
    /// It is taken.
    Created,
    /// 400 with a message that begins so.
    Bad(String),
    /// 422, with a cause of this reason whose field begins so.
    Cause(&'static str, &'static str),
    /// The object, or a refusal that names the place or one that has to do with it.
    About(String),
}

struct Walk<'a> {
    admin: &'a Client<'a>,
    row: &'a Row,
    of: &'static Type,
    collection: String,
    object: Value,
    surprises: Vec<String>,
    asked: usize,
}

impl<'a> Walk<'a> {
    fn new(admin: &'a Client<'a>, row: &'a Row) -> Self {
        let prefix = if row.kind.group.is_empty() { "/api" } else { "/apis" };
        let scope = if row.namespaced() { "/namespaces/default" } else { "" };
        let collection = format!("{prefix}/{}{scope}/{}", row.api_version(), row.resource.resource);
        let kind = &row.kind;
        let mut object = content(&kind.group, &kind.kind);
        object["apiVersion"] = row.api_version().into();
        object["kind"] = kind.kind.as_str().into();
        object["metadata"] =
            json!({"name": name(&kind.kind), "labels": {"a": "b"}, "annotations": {"c": "d"}});
        let of = types::by_kind(&kind.group, &kind.version, &kind.kind).expect("a built-in kind");
        Self { admin, row, of, collection, object, surprises: Vec::new(), asked: 0 }
    }

    /// Creates nothing: says what would come of it.
    async fn send(&mut self, query: &str, body: impl Into<Vec<u8>>, syntax: &str) -> Answer {
        self.asked += 1;
        let path = format!("{}?dryRun=All{query}", self.collection);
        self.admin.call(Method::POST, &path, &[("content-type", syntax)], body).await
    }

    async fn check(&mut self, what: &str, object: &Value, expected: &Expected) {
        // Every other one in YAML, which says the same.
        let json = object.to_string();
        let syntax = if self.asked.is_multiple_of(2) { JSON } else { YAML };
        let body = if syntax == JSON {
            json
        } else {
            codec::yaml::from_json(json.as_bytes()).expect("YAML")
        };
        let answer = self.send("&fieldValidation=Strict", body, syntax).await;
        self.judge(what, object, &answer, expected);
    }

    fn judge(&mut self, what: &str, object: &Value, answer: &Answer, expected: &Expected) {
        let mut wrong = judge::whole(&self.row.kind, self.of, object, answer);
        let (code, status) = (answer.code.as_u16(), answer.json());
        let message = status["message"].as_str().unwrap_or_default();
        let causes = judge::causes(&status);
        let as_expected = match expected {
            Expected::Created => code == 201,
            Expected::Bad(start) => code == 400 && message.starts_with(start),
            Expected::Cause(reason, field) => {
                code == 422
                    && causes.iter().any(|cause| cause.0 == *reason && cause.1.starts_with(field))
            }
            Expected::About(path) => {
                code != 422 || causes.iter().any(|cause| judge::related(&cause.1, path))
            }
        };
        if !as_expected {
            wrong.push("not as expected".to_owned());
        }
        for problem in wrong {
            let kind = &self.row.kind.kind;
            self.surprises.push(format!(
                "{kind} {}, {what}: {problem}: {code} {message}",
                self.row.api_version()
            ));
        }
    }

    /// The object with another value at a place.
    fn with(&self, pointer: &str, value: Value) -> Value {
        let mut object = self.object.clone();
        match object.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => panic!("{pointer}"),
        }
        object
    }

    fn without(&self, place: &Place) -> Option<Value> {
        let mut object = self.object.clone();
        let (above, name) = place.pointer.rsplit_once('/')?;
        object.pointer_mut(above)?.as_object_mut()?.remove(name)?;
        Some(object)
    }

    async fn valid(&mut self) {
        let object = self.object.clone();
        self.check("valid", &object, &Expected::Created).await;
        self.check("valid", &object, &Expected::Created).await;
    }

    /// What every kind's metadata must be.
    async fn metadata(&mut self) {
        let invalid = |field| Expected::Cause("FieldValueInvalid", field);
        let long = "x".repeat(300_000);
        let cases = [
            ("name", json!("a/b"), invalid("metadata.name")),
            ("name", json!("a b%"), invalid("metadata.name")),
            ("name", json!(""), Expected::Cause("FieldValueRequired", "metadata.name")),
            ("labels", json!({"a": "b c"}), invalid("metadata.labels")),
            ("labels", json!({"a b": "c"}), invalid("metadata.labels")),
            ("labels", json!({"a": "x".repeat(64)}), invalid("metadata.labels")),
            ("annotations", json!({"/x": "y"}), invalid("metadata.annotations")),
            (
                "annotations",
                json!({"x": long}),
                Expected::Cause("FieldValueTooLong", "metadata.annotations"),
            ),
            ("finalizers", json!(["a b"]), invalid("metadata.finalizers")),
            (
                "ownerReferences",
                json!([{"apiVersion": "v1", "kind": "", "name": "n", "uid": "u"}]),
                invalid("metadata.ownerReferences"),
            ),
            (
                "resourceVersion",
                json!("7"),
                Expected::Bad("resourceVersion should not be set on objects to be created".into()),
            ),
        ];
        for (field, value, expected) in cases {
            let mut object = self.object.clone();
            object["metadata"][field] = value;
            self.check(&format!("metadata.{field}"), &object, &expected).await;
        }
        if self.row.namespaced() {
            let mut object = self.object.clone();
            object["metadata"]["namespace"] = "other".into();
            let message = "the namespace of the provided object does not match the namespace sent on the request";
            self.check("namespace", &object, &Expected::Bad(message.into())).await;
        }
        let kind = self.row.kind.kind.clone();
        let nothing = format!(
            "Nothing in version \"{}\" cannot be handled as a {kind}: no kind \"Nothing\"",
            self.row.kind.version
        );
        let object = self.with("/kind", "Nothing".into());
        self.check("kind", &object, &Expected::Bad(nothing)).await;
        let object = self.with("/apiVersion", "example.com/v9".into());
        let nowhere = format!(
            "{kind} in version \"v9\" cannot be handled as a {kind}: no kind \"{kind}\" is registered"
        );
        self.check("apiVersion", &object, &Expected::Bad(nowhere)).await;
    }

    /// A value of a wrong type at every place.
    async fn wrong_types(&mut self, places: &[Place]) {
        let cannot = self.cannot();
        for place in places {
            let Some((value, got)) = wrong(&place.of) else { continue };
            let Place { owner, names, .. } = place;
            let expected = match place.of {
                Of::Quantity => format!("{cannot}: quantities must match the regular expression"),
                _ => format!(
                    "{cannot}: json: cannot unmarshal {got} into Go struct field {owner}.{names} of type "
                ),
            };
            let object = self.with(&place.pointer, value);
            self.check(&format!("{got} at {}", place.path), &object, &Expected::Bad(expected))
                .await;
        }
    }

    fn cannot(&self) -> String {
        let kind = &self.row.kind;
        format!(
            "{} in version \"{}\" cannot be handled as a {}",
            kind.kind, kind.version, kind.kind
        )
    }

    /// A field too many, and one twice, in every object.
    async fn fields_too_many(&mut self, places: &[Place]) {
        let cannot = self.cannot();
        for place in places.iter().filter(|place| matches!(place.of, Of::Object(_))) {
            let mut object = self.object.clone();
            let Some(Value::Object(map)) = object.pointer_mut(&place.pointer) else { continue };
            let known = map.iter().next().map(|(key, value)| (key.clone(), value.to_string()));
            map.insert("bogus".into(), 0.into());
            let dot = if place.path.is_empty() { "" } else { "." };
            let unknown = format!("unknown field \"{}{dot}bogus\"", place.path);
            let expected = Expected::Bad(format!("{cannot}: strict decoding error: {unknown}"));
            self.check(&unknown, &object, &expected).await;
            let answer = self.send("", object.to_string(), JSON).await;
            self.judge(&unknown, &object, &answer, &Expected::Created);
            let warned = answer.headers.get_all("warning").iter().any(|warning| {
                warning.to_str().is_ok_and(|text| text.contains(&unknown.replace('"', "\\\"")))
            });
            if !warned {
                self.surprises.push(format!("{}: no warning of {unknown}", self.collection));
            }
            let Some((key, value)) = known else { continue };
            let twice = object.to_string().replace("\"bogus\":0", &format!("\"{key}\":{value}"));
            let answer = self.send("&fieldValidation=Strict", twice, JSON).await;
            let duplicate = format!(
                "{cannot}: strict decoding error: duplicate field \"{}{dot}{key}\"",
                place.path
            );
            self.judge("twice", &object, &answer, &Expected::Bad(duplicate));
        }
    }

    /// Null means that a field is absent, and without what is needed a refusal says so.
    async fn missing(&mut self, places: &[Place]) {
        for place in places {
            let Some(without) = self.without(place) else { continue };
            let expected = Expected::About(place.path.clone());
            let null = self.with(&place.pointer, Value::Null);
            let (one, other) = (
                self.send("", without.to_string(), JSON).await,
                self.send("", null.to_string(), JSON).await,
            );
            self.judge(&format!("without {}", place.path), &without, &one, &expected);
            let in_map = place.path.ends_with(']');
            if !in_map
                && (one.code, one.json()["message"].clone())
                    != (other.code, other.json()["message"].clone())
            {
                self.surprises.push(format!(
                    "{}: null at {} is {} {}",
                    self.collection,
                    place.path,
                    other.code,
                    other.text()
                ));
            }
        }
    }

    /// One field more, or one leaf changed, to some value of its type.
    async fn other_values(&mut self, rng: &mut Rng, places: &[Place]) {
        let Some(place) = places.choose(rng).cloned() else { return };
        let (mut object, path) = match place.of {
            Of::Object(id) => {
                let Some(field) = types::by_id(id).fields.choose(rng) else { return };
                let mut object = self.object.clone();
                let Some(Value::Object(map)) = object.pointer_mut(&place.pointer) else { return };
                map.insert(field.name.to_owned(), object::value(rng, &field.of, 4));
                (object, [place.path.as_str(), field.name].join("."))
            }
            _ => (self.with(&place.pointer, object::value(rng, &place.of, 3)), place.path.clone()),
        };
        if ["kind", "apiVersion"].iter().any(|field| path.trim_start_matches('.') == *field) {
            return;
        }
        if rand::Rng::random_bool(rng, 0.2) {
            object = mutate::json(rng, &object);
            let answer = self.send("", object.to_string(), JSON).await;
            self.judge("something changed", &object, &answer, &Expected::About(String::new()));
            return;
        }
        let answer = self.send("", object.to_string(), JSON).await;
        self.judge(&format!("some value at {path}"), &object, &answer, &Expected::About(path));
    }
}

/// JSON that is not of a type, and how errors call it.
fn wrong(of: &Of) -> Option<(Value, &'static str)> {
    Some(match of {
        Of::String | Of::Bool | Of::Bytes | Of::Time | Of::MicroTime => (json!(5), "number"),
        Of::Int32 | Of::Int64 | Of::Double => (json!("five"), "string"),
        Of::IntOrString | Of::Quantity => (json!([1]), "array"),
        Of::Object(_) | Of::Map(_) => (json!("five"), "string"),
        Of::List(_) => (json!("five"), "string"),
        Of::Any => return None,
    })
}

/// Answers that surprise, and are upstream's: paths that leave out a field or an index, and checks of one field that
/// speak of another.
const UPSTREAM: &[&str] = &[
    "spec.resources[storage]",
    "template.labels",
    ".volumeMounts.",
    ".cephFS",
    "topologySpreadConstraints[0][1]",
    "requiredDuringSchedulingIgnoredDuringExecution[0].namespace",
    "`selector` does not match template `labels`",
    "must be `spec.version+",
];

#[test]
fn objects_of_every_kind_slightly_broken() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let cluster = runtime.block_on(Cluster::start());
    let admin = cluster.admin();
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    runtime.block_on(admin.post("/api/v1/namespaces/default/serviceaccounts", &account));
    let rows: Vec<_> = cluster
        .server
        .registry()
        .rows()
        .iter()
        .filter(|row| row.storage.is_some())
        .cloned()
        .collect();
    assert!(rows.len() > 55, "{}", rows.len());
    let (mut surprises, mut asked) = (Vec::new(), 0);
    for row in &rows {
        let mut walk = Walk::new(&admin, row);
        let all = places(walk.of, &walk.object);
        let all: Vec<_> = all
            .into_iter()
            .filter(|at| !["kind", "apiVersion"].contains(&at.path.as_str()))
            .collect();
        runtime.block_on(async {
            walk.valid().await;
            walk.metadata().await;
            walk.wrong_types(&all).await;
            let whole = Place {
                pointer: String::new(),
                path: String::new(),
                owner: walk.of.short_name(),
                names: String::new(),
                of: Of::Object(walk.of.id),
            };
            walk.fields_too_many(&[vec![whole], all.clone()].concat()).await;
            walk.missing(&all).await;
        });
        surprises.append(&mut walk.surprises);
        asked += walk.asked;
    }
    campaign("broken objects", 1500, |rng| {
        let row = rows.choose(rng).expect("rows");
        let mut walk = Walk::new(&admin, row);
        let all = places(walk.of, &walk.object);
        runtime.block_on(walk.other_values(rng, &all));
        surprises.append(&mut walk.surprises);
        asked += walk.asked;
    });
    println!("{asked} bodies of {} kinds", rows.len());
    surprises.retain(|surprise| !UPSTREAM.iter().any(|known| surprise.contains(known)));
    surprises.sort();
    surprises.dedup();
    assert!(surprises.is_empty(), "{} surprises:\n{}", surprises.len(), surprises.join("\n"));
}
