//! Get and list: which revision they show, which objects, and how many of them.

mod token;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meta::{FieldErrorKind, Revision, Status};
use store::{Key, ReadError, Record, Snapshot};

use crate::header::Header;
use crate::object::Object;
use crate::outcome::{Answer, List, Outcome};
use crate::params::{VersionMatch, refuse};
use crate::registry::{Registry, read_error};
use crate::request::Request;
use crate::selection::Selection;
use token::Token;

/// How long a read waits for a revision that the store has not reached.
const PATIENCE: Duration = Duration::from_secs(3);

/// GET of one object.
pub(crate) async fn get(engine: &Arc<Registry>, request: &Request) -> Answer {
    let object = find(engine, request).await?;
    Ok(Outcome::Object { code: 200, bytes: object.to_json(&request.row), warnings: Vec::new() })
}

/// The object a request names, at a revision the request accepts.
///
/// # Errors
/// 404 if there is none.
pub(crate) async fn find(engine: &Arc<Registry>, request: &Request) -> Result<Object, Status> {
    let context = crate::pipeline::Context::new(engine, request)?;
    let name = context.name()?;
    let key = context.key(name)?;
    let version = version(&request.params.resource_version)?;
    let snapshot = at_least(engine, version).await?;
    match snapshot.get(&key) {
        Some(record) => Ok(Object::new(&request.row, key, record.clone())),
        None => Err(Status::not_found(&request.row.group_resource(), name)),
    }
}

/// Parses a resource version: `None` where unset.
///
/// # Errors
/// 400 for what is no number.
pub(crate) fn version(text: &str) -> Result<Option<Revision>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let detail = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        Status::bad_request(format!("resourceVersion: Invalid value: {text:?}: {detail}"))
    })
}

/// A snapshot no older than a resource version: the newest of all where that is unset, whatever
/// is at hand for zero.
pub(crate) async fn at_least(
    engine: &Registry,
    version: Option<Revision>,
) -> Result<Snapshot<Header>, Status> {
    let Some(version) = version else { return engine.latest().await };
    let snapshot = engine.store.snapshot();
    if snapshot.revision() >= version {
        return Ok(snapshot);
    }
    match tokio::time::timeout(PATIENCE, engine.store.at_least(version)).await {
        Ok(snapshot) => snapshot.map_err(read_error),
        Err(_) => {
            Err(Status::too_large_resource_version(version.0, engine.store.snapshot().revision().0))
        }
    }
}

/// LIST of a collection.
pub(crate) async fn list(engine: &Arc<Registry>, request: &Request) -> Result<List, Status> {
    check_options(request)?;
    let row = &request.row;
    let selection = Selection::parse(row, &request.params, request.name.as_deref())?;
    let namespace = request.namespace.as_deref().filter(|n| !n.is_empty());
    // Naming one namespace by selector is the same as asking within it.
    let narrowed = namespace.or_else(|| selection.namespace().filter(|_| row.namespaced()));
    let prefix = row.prefix(narrowed);
    let token = Token::read(&request.params.continue_token)?;
    let by_node =
        selection.value_of(row, "spec.nodeName").filter(|_| row.resource.resource == "pods");
    let page = Page { selection: &selection, prefix: &prefix, limit: request.params.limit };
    let (snapshot, items, rest) = match by_node {
        Some(node) if token.is_none() && request.params.version_match.is_none() => {
            let index = engine.pods.read();
            let snapshot = at_least(engine, version(&request.params.resource_version)?).await?;
            let candidates = engine.pods.candidates(engine, &index, &snapshot, node);
            let (items, rest) = page.take(candidates.iter());
            (snapshot, items, rest)
        }
        _ => {
            let snapshot = snapshot(engine, request, token.as_ref()).await?;
            let after = token.as_ref().map(|t| format!("{prefix}{}", t.start));
            let (items, rest) = match (narrowed, selection.name()) {
                (Some(_), Some(name)) => page.one(&snapshot, name),
                (None, Some(name)) if !row.namespaced() => page.one(&snapshot, name),
                _ => page.take(snapshot.range_after(&prefix, after.as_deref())),
            };
            (snapshot, items, rest)
        }
    };
    let (continue_token, remaining) = match rest {
        None => (String::new(), None),
        Some(last) => {
            let remaining = remaining(engine, &selection, &snapshot, &prefix, token, items.len());
            let start = last.get(prefix.len()..).unwrap_or_default().to_owned();
            let token = Token { revision: snapshot.revision().0, start, left: remaining };
            (token.write(), remaining)
        }
    };
    let revision = snapshot.revision();
    let items = items.into_iter().map(|(k, r)| Object::new(row, k, r)).collect();
    Ok(List { row: row.clone(), revision, continue_token, remaining, items })
}

type Items = Vec<(Key, Arc<Record<Header>>)>;

/// One page of a collection.
struct Page<'a> {
    selection: &'a Selection,
    prefix: &'a str,
    /// 0 is no limit.
    limit: u64,
}

impl Page<'_> {
    /// The selected records, and the last key if more of them follow.
    fn take<'r>(
        &self,
        records: impl Iterator<Item = (&'r Key, &'r Arc<Record<Header>>)>,
    ) -> (Items, Option<Key>) {
        let limit = if self.limit == 0 {
            usize::MAX
        } else {
            usize::try_from(self.limit).unwrap_or(usize::MAX)
        };
        let mut items = Items::new();
        for (key, record) in records {
            if !key.starts_with(self.prefix) || !self.selection.matches(key, &record.note) {
                continue;
            }
            if items.len() == limit {
                let last = items.last().map(|(key, _)| key.clone());
                return (items, last);
            }
            items.push((key.clone(), record.clone()));
        }
        (items, None)
    }

    /// The one object that the selection names.
    fn one(&self, snapshot: &Snapshot<Header>, name: &str) -> (Items, Option<Key>) {
        let key = Key::new(format!("{}{name}", self.prefix));
        let record = snapshot.get(&key).filter(|r| self.selection.matches(&key, &r.note));
        (record.map(|r| (key.clone(), r.clone())).into_iter().collect(), None)
    }
}

/// How many objects follow a page; known only where no selector hides any.
fn remaining(
    engine: &Registry,
    selection: &Selection,
    snapshot: &Snapshot<Header>,
    prefix: &str,
    token: Option<Token>,
    served: usize,
) -> Option<u64> {
    if !selection.is_everything() {
        return None;
    }
    let before = match token {
        Some(token) => token.left?,
        None => engine.count(snapshot, prefix),
    };
    Some(before.saturating_sub(served as u64))
}

/// The snapshot that a list shows.
async fn snapshot(
    engine: &Registry,
    request: &Request,
    token: Option<&Token>,
) -> Result<Snapshot<Header>, Status> {
    let params = &request.params;
    if let Some(token) = token {
        return engine.store.at(Revision(token.revision)).map_err(|error| match error {
            ReadError::Compacted { .. } => Status::expired(
                "The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.",
            ),
            other => read_error(other),
        });
    }
    let wanted = version(&params.resource_version)?;
    let exact = match params.version_match {
        Some(matching) => matching == VersionMatch::Exact,
        // A limited list at a revision means that revision, for the pages to agree.
        None => params.limit > 0,
    };
    match wanted {
        Some(revision) if exact && revision.0 > 0 => engine.store.at(revision).map_err(read_error),
        wanted => at_least(engine, wanted).await,
    }
}

/// The rules between the parameters of a list.
fn check_options(request: &Request) -> Result<(), Status> {
    let params = &request.params;
    let forbid = |field: &str, detail: &str| {
        Err(refuse("ListOptions", FieldErrorKind::Forbidden, field, "", detail.to_owned()))
    };
    if params.send_initial_events.is_some() {
        return forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
    }
    if let Some(matching) = params.version_match {
        let field = "resourceVersionMatch";
        if params.resource_version.is_empty() {
            return forbid(
                field,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
        }
        if !params.continue_token.is_empty() {
            return forbid(field, "resourceVersionMatch is forbidden when continue is provided");
        }
        if matching == VersionMatch::Exact && params.resource_version == "0" {
            return forbid(
                field,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            );
        }
    }
    if !params.continue_token.is_empty() && !matches!(params.resource_version.as_str(), "" | "0") {
        return Err(Status::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    Ok(())
}

/// Records found by an index: sorted by key, and each as it is in the snapshot.
pub(crate) type Candidates = BTreeMap<Key, Arc<Record<Header>>>;
