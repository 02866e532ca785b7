//! Get and list: which revision they show, which objects, and how many of them.

mod token;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meta::{Revision, Status};
use store::{Key, ReadError, Record, Snapshot};

use crate::header::Header;
use crate::object::Object;
use crate::outcome::{Answer, List, Outcome};
use crate::params::VersionMatch;
use crate::registry::{Registry, read_error};
use crate::request::Request;
use crate::selection::Selection;
use token::Token;

/// How long a read waits for a revision that the store has not reached.
const PATIENCE: Duration = Duration::from_secs(3);

/// GET of one object.
pub(crate) async fn get(engine: &Arc<Registry>, request: &Request) -> Answer {
    let object = find(engine, request).await?;
    Ok(Outcome::Object {
        code: 200,
        bytes: object.to_json(&request.row),
        identity: Some(object.identity()),
        warnings: Vec::new(),
    })
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
    let row = &request.row;
    let selection = Selection::parse(row, &request.params, request.name.as_deref())?;
    let namespace = request.namespace.as_deref().filter(|n| !n.is_empty());
    // Naming one namespace by selector is the same as asking within it.
    let narrowed = namespace.or_else(|| selection.namespace().filter(|_| row.namespaced()));
    let prefix = row.prefix(narrowed);
    let token = Token::read(&request.params.continue_token)?;
    let wanted = listed_version(request, token.as_ref())?;
    // A list of whatever is at hand comes whole.
    let limit = match request.params.resource_version.as_str() {
        "0" if token.is_none() => 0,
        _ => request.params.limit,
    };
    let page = Page { selection: &selection, prefix: &prefix, limit };
    let (snapshot, items, rest) = match selection.node(row) {
        Some(node) if token.is_none() && request.params.version_match.is_none() => {
            let index = engine.pods.read();
            let snapshot = at_least(engine, wanted).await?;
            let candidates = engine.pods.candidates(engine, &index, &snapshot, node);
            let (items, rest) = page.take(candidates.iter());
            (snapshot, items, rest)
        }
        _ => {
            let snapshot = snapshot(engine, request, wanted, token.as_ref()).await?;
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
            let remaining =
                remaining(engine, &selection, &snapshot, &prefix, token.as_ref(), items.len());
            let start = last.get(prefix.len()..).unwrap_or_default().to_owned();
            let token = Token { revision: Some(snapshot.revision().0), start, left: remaining };
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
    token: Option<&Token>,
    served: usize,
) -> Option<u64> {
    if !selection.is_everything() {
        return None;
    }
    let before = match token {
        Some(Token { left: Some(left), .. }) => *left,
        Some(token) => {
            let after = format!("{prefix}{}", token.start);
            snapshot.range_after(prefix, Some(&after)).count() as u64
        }
        None => engine.count(snapshot, prefix),
    };
    Some(before.saturating_sub(served as u64))
}

/// The resource version a list is asked to show.
fn listed_version(request: &Request, token: Option<&Token>) -> Result<Option<Revision>, Status> {
    let text = &request.params.resource_version;
    if token.is_none() {
        return version(text).map_err(|error| {
            Status::bad_request(format!("invalid resource version: {}", error.message))
        });
    }
    if !matches!(text.as_str(), "" | "0") {
        return Err(Status::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    Ok(None)
}

/// The snapshot that a list shows.
async fn snapshot(
    engine: &Registry,
    request: &Request,
    wanted: Option<Revision>,
    token: Option<&Token>,
) -> Result<Snapshot<Header>, Status> {
    let params = &request.params;
    if let Some(token) = token {
        // A token without a revision goes on in the newest state.
        let Some(revision) = token.revision else { return engine.latest().await };
        return engine.store.at(Revision(revision)).map_err(|error| match error {
            ReadError::Compacted { .. } => {
                Status::expired(INCONSISTENT).with_continue(token.unbound())
            }
            other => read_error(other),
        });
    }
    let exact = match params.version_match {
        Some(matching) => matching == VersionMatch::Exact,
        // A limited list at a revision means that revision, for the pages to agree.
        None => params.limit > 0,
    };
    match wanted {
        Some(revision) if exact && revision.0 > 0 => {
            // One in the future may come yet.
            at_least(engine, Some(revision)).await?;
            engine.store.at(revision).map_err(read_error)
        }
        wanted => at_least(engine, wanted).await,
    }
}

/// Upstream's words, which clients show: how to go on without the pages agreeing.
const INCONSISTENT: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Records found by an index: sorted by key, and each as it is in the snapshot.
pub(crate) type Candidates = BTreeMap<Key, Arc<Record<Header>>>;
