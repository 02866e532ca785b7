//! An engine on an embedded store in a temporary directory, and requests in short notation.

use std::sync::Arc;

use jiff::Timestamp;
use meta::Status;
use serde_json::Value;
use skiff_registry::{
    Action, Admit, Header, Options, Outcome, Params, PatchType, Registry, Request, Row, Rows,
    UserInfo, header_reader,
};
use store::{Embedded, Store};

/// An engine and what it stands on.
pub(crate) struct Bench {
    pub(crate) engine: Arc<Registry>,
    pub(crate) store: Arc<dyn Store<Header>>,
    _directory: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Vec::new())
    }

    pub(crate) fn with(admission: Vec<Arc<dyn Admit>>) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let rows = Arc::new(Rows::builtin());
        let options = store::Options::new(directory.path().join("store"));
        let store = Embedded::open(options, header_reader(rows.clone())).expect("store opens");
        let store: Arc<dyn Store<Header>> = Arc::new(store);
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().expect("time");
        let options = Options { admission, clock: Arc::new(move || now), ..Options::default() };
        Self { engine: Registry::new(store.clone(), rows, options), store, _directory: directory }
    }

    /// The row of `plural` or `plural.group` or `plural.group/version`.
    pub(crate) fn row(&self, name: &str) -> Arc<Row> {
        let (name, version) = match name.split_once('/') {
            Some((name, version)) => (name, Some(version)),
            None => (name, None),
        };
        let (plural, group) = match name.split_once('.') {
            Some((plural, group)) => (plural, Some(group)),
            None => (name, None),
        };
        let found = self.engine.rows().iter().find(|row| {
            row.resource.resource == plural
                && group.is_none_or(|g| row.resource.group == g)
                && version.is_none_or(|v| row.resource.version == v)
        });
        found.unwrap_or_else(|| panic!("no row {name}")).clone()
    }

    /// A request such as `("get", "pods/web/status", "default", "")` with a JSON body.
    pub(crate) fn request(
        &self,
        verb: &str,
        path: &str,
        namespace: &str,
        query: &str,
        body: &str,
    ) -> Result<Request, Status> {
        // A version is written with `@` here, for `/` separates names.
        let mut parts = path.splitn(3, '/');
        let resource = parts.next().expect("resource").replace('@', "/");
        let row = self.row(&resource);
        let bytes = bytes::Bytes::from(body.to_owned());
        let action = match verb {
            "get" => Action::Get,
            "list" => Action::List,
            "watch" => Action::Watch,
            "create" => Action::Create(bytes),
            "update" => Action::Update(bytes),
            "patch:json" => Action::Patch(PatchType::Json, bytes),
            "patch:merge" => Action::Patch(PatchType::Merge, bytes),
            "patch:apply" => Action::Patch(PatchType::Apply, bytes),
            "patch:strategic" => Action::Patch(PatchType::Strategic, bytes),
            "delete" => Action::Delete(bytes),
            "deletecollection" => Action::DeleteCollection(bytes),
            other => panic!("no verb {other}"),
        };
        let pairs = query
            .split('&')
            .filter(|p| !p.is_empty())
            .map(|p| p.split_once('=').unwrap_or((p, "")));
        let params = Params::parse(action.verb(), pairs)?;
        Ok(Request {
            user: Arc::new(UserInfo { name: "alice".to_owned(), ..UserInfo::default() }),
            namespace: (!namespace.is_empty() && row.namespaced()).then(|| namespace.to_owned()),
            name: parts.next().map(str::to_owned),
            subresource: parts.next().map(str::to_owned),
            row,
            action,
            params,
        })
    }

    pub(crate) async fn run(
        &self,
        verb: &str,
        path: &str,
        namespace: &str,
        query: &str,
        body: &str,
    ) -> Result<Outcome, Status> {
        let request = self.request(verb, path, namespace, query, body)?;
        self.engine.execute(request).await
    }

    /// Runs a request that must succeed and gives its JSON.
    pub(crate) async fn json(
        &self,
        verb: &str,
        path: &str,
        namespace: &str,
        query: &str,
        body: &str,
    ) -> Value {
        match self.run(verb, path, namespace, query, body).await {
            Ok(outcome) => json_of(outcome).1,
            Err(status) => panic!("{verb} {path}: {status}"),
        }
    }
}

/// Code and JSON of an outcome.
pub(crate) fn json_of(outcome: Outcome) -> (u16, Value, Vec<String>) {
    let (code, bytes, warnings) = match outcome {
        Outcome::Object { code, bytes, warnings, .. }
        | Outcome::Status { code, bytes, warnings } => (code, bytes, warnings),
        Outcome::List(list) => (200, list.to_json(), Vec::new()),
        Outcome::Watch(_) => panic!("a watch has no JSON"),
    };
    (code, serde_json::from_slice(&bytes).expect("JSON"), warnings)
}

/// Where `actual` lacks something of `expected`; lists must agree in length, `"*"` is anything.
pub(crate) fn difference(expected: &Value, actual: &Value, path: &str) -> Option<String> {
    match (expected, actual) {
        (Value::String(any), found) if any == "*" && !found.is_null() => None,
        (Value::Object(expected), Value::Object(actual)) => {
            expected.iter().find_map(|(name, value)| {
                difference(
                    value,
                    actual.get(name).unwrap_or(&Value::Null),
                    &format!("{path}.{name}"),
                )
            })
        }
        (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => {
            expected
                .iter()
                .zip(actual)
                .enumerate()
                .find_map(|(i, (e, a))| difference(e, a, &format!("{path}[{i}]")))
        }
        (expected, actual) if expected == actual => None,
        (expected, actual) => Some(format!("{path}: expected {expected}, got {actual}")),
    }
}
