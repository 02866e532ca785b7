//! What becomes of who manages what when an object is written, by applying or otherwise. Owns the rules; which
//! versions a kind has and how they are converted, it is told.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::check::check;
use super::collect::mentioned;
use super::compare::{Diff, compare};
use super::managed::{Entry, Managed, Operation};
use super::merge::merge;
use super::prune::prune;
use super::set::{Path, Set};
use crate::types::Type;
use crate::view::same;

/// The most managers that came to their fields by other writes than applying; the oldest are merged beyond it.
const MOST_UPDATERS: usize = 10;

/// The manager of what the oldest ones managed.
const ANCIENT: &str = "ancient-changes";

/// The manager of what was there before anybody applied.
const BEFORE: &str = "before-first-apply";

/// What nobody manages: identity, and what the system writes.
static NOBODYS: LazyLock<Set> = LazyLock::new(|| {
    Set::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// Which fields a write cannot touch, so that nobody comes to manage them by it.
#[derive(Debug, Clone)]
pub enum Reset {
    /// These, with all that is in them.
    These(Set),
    /// All but what lies at these patterns (`*` is any step).
    AllBut(&'static [&'static [&'static str]]),
}

impl Reset {
    fn filter(&self, mut set: Set) -> Set {
        match self {
            Self::These(fields) => {
                set.remove_deep(fields);
                set
            }
            Self::AllBut(patterns) => set.only(patterns),
        }
    }
}

/// The versions of a kind.
pub trait Versions {
    /// The type of the kind's objects in a version, `apps/v1`.
    fn type_in(&self, api_version: &str) -> Option<&'static Type>;
    /// An object in another version.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Value;
}

/// A write: by whom, through what, when.
pub struct Writer<'a> {
    /// The manager's name.
    pub manager: &'a str,
    /// The subresource written to; empty for the object itself.
    pub subresource: &'a str,
    /// The version in which it is written.
    pub api_version: &'a str,
    /// The time, in whole seconds.
    pub now: &'a str,
    /// What it cannot touch.
    pub reset: &'a Reset,
    /// The kind.
    pub versions: &'a dyn Versions,
}

/// A field that somebody else manages and that would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who, as messages print it.
    pub manager: String,
    /// The field.
    pub path: Path,
}

/// Why something cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyError {
    /// It is not of the kind's type: what is wrong.
    Typed(String),
    /// Others manage what would change.
    Conflicts(Vec<Conflict>),
}

/// An object after applying, and who manages it now.
#[derive(Debug)]
pub struct Applied {
    /// The object; not defaulted.
    pub object: Value,
    /// Who manages what.
    pub managed: Managed,
}

/// The differences between two objects in every version that is asked for.
struct Diffs<'a> {
    writer: &'a Writer<'a>,
    old: &'a Value,
    new: &'a Value,
    known: BTreeMap<String, Option<Diff>>,
}

impl Diffs<'_> {
    /// The difference in a version; nothing for versions that the kind does not have.
    fn at(&mut self, version: &str) -> Option<&Diff> {
        if !self.known.contains_key(version) {
            let diff = self.make(version);
            self.known.insert(version.to_owned(), diff);
        }
        self.known.get(version)?.as_ref()
    }

    fn make(&self, version: &str) -> Option<Diff> {
        let of = self.writer.versions.type_in(version)?;
        let (old, new) =
            (self.writer.in_version(self.old, version), self.writer.in_version(self.new, version));
        let Diff { changed, removed } = compare(of, &old, &new);
        let reset = self.writer.reset;
        Some(Diff { changed: reset.filter(changed), removed: reset.filter(removed) })
    }
}

impl Writer<'_> {
    /// An object of the writer's version in another.
    fn in_version<'v>(&self, object: &'v Value, version: &str) -> Cow<'v, Value> {
        if version == self.api_version {
            return Cow::Borrowed(object);
        }
        Cow::Owned(self.versions.convert(object, self.api_version, version))
    }

    fn entry(&self, operation: Operation, fields: Set) -> Entry {
        Entry {
            manager: self.manager.to_owned(),
            operation,
            api_version: self.api_version.to_owned(),
            time: None,
            fields,
            subresource: self.subresource.to_owned(),
            known_by: None,
        }
    }

    /// Who manages what after a write that is no apply: what it changed is the writer's. Nothing if nothing changed.
    ///
    /// `managed` is called if something did. A new object is compared with an empty one.
    #[must_use]
    pub fn update(
        &self,
        old: &Value,
        new: &Value,
        managed: impl FnOnce() -> Managed,
    ) -> Option<Managed> {
        let mut diffs = Diffs { writer: self, old, new, known: BTreeMap::new() };
        let diff = diffs.at(self.api_version)?;
        if diff.is_empty() {
            return None;
        }
        let mut own = diff.changed.clone();
        own.remove(&NOBODYS);
        let mut managed = managed();
        managed.entries.retain_mut(|entry| disown(entry, &mut diffs));
        if !own.is_empty() {
            let mut entry = self.entry(Operation::Update, own);
            entry.time = Some(self.now.to_owned());
            match managed.entries.iter_mut().find(|other| other.is(&entry)) {
                Some(other) => {
                    other.fields.add(entry.fields);
                    other.time = entry.time;
                }
                None => managed.entries.push(entry),
            }
        }
        cap(&mut managed);
        Some(managed)
    }

    /// Applies to an object (null where there is none yet).
    ///
    /// # Errors
    /// If what is applied is not of the kind, or others manage what would change and the apply is not forced.
    pub fn apply(
        &self,
        live: &Value,
        applied: &Value,
        mut managed: Managed,
        force: bool,
    ) -> Result<Applied, ApplyError> {
        let Some(of) = self.versions.type_in(self.api_version) else {
            return Err(ApplyError::Typed("no corresponding type".to_owned()));
        };
        if managed.is_empty() && !live.is_null() {
            let before = Self { manager: BEFORE, ..*self };
            let empty = Value::Object(serde_json::Map::new());
            managed = before.update(&empty, live, Managed::default).unwrap_or_default();
        }
        check(of, applied).map_err(ApplyError::Typed)?;
        let merged = if live.is_null() { applied.clone() } else { merge(of, live, applied) };
        let mut own = self.entry(Operation::Apply, self.reset.filter(mentioned(of, applied)));
        let at = managed.entries.iter().position(|entry| entry.is(&own));
        let last = at.map(|at| managed.entries.remove(at));
        let object = match &last {
            None => merged,
            Some(last) => {
                own.time.clone_from(&last.time);
                own.known_by.clone_from(&last.known_by);
                prune(self, of, merged, last, &own, &managed)
            }
        };
        let empty = Value::Object(serde_json::Map::new());
        let old = if live.is_null() { &empty } else { live };
        let mut diffs = Diffs { writer: self, old, new: &object, known: BTreeMap::new() };
        if !force {
            let conflicts = conflicts(&managed, &mut diffs);
            if !conflicts.is_empty() {
                return Err(ApplyError::Conflicts(conflicts));
            }
        }
        managed.entries.retain_mut(|entry| disown(entry, &mut diffs));
        own.fields.remove(&NOBODYS);
        let unchanged = same(live, &object);
        if !own.fields.is_empty() {
            if !unchanged {
                own.time = Some(self.now.to_owned());
            }
            managed.entries.push(own);
        }
        Ok(Applied { object, managed })
    }

    /// The conflicts that do not count for kubectl's first server-side apply: fields that it applied on the client's
    /// side before, as the annotation `last` has them, and nobody changed since.
    #[must_use]
    pub fn beyond_last_applied(
        &self,
        live: &Value,
        last: &Value,
        conflicts: Vec<Conflict>,
    ) -> Vec<Conflict> {
        let Some(of) = self.versions.type_in(self.api_version) else { return conflicts };
        if last["apiVersion"] != self.api_version || check(of, last).is_err() {
            return conflicts;
        }
        let mut allowed = mentioned(of, last);
        let diff = compare(of, last, live);
        allowed.remove(&diff.changed);
        allowed.remove(&diff.removed);
        conflicts.into_iter().filter(|conflict| !allowed.has(&conflict.path)).collect()
    }
}

/// Takes from an entry what others changed; false if nothing is left of it.
fn disown(entry: &mut Entry, diffs: &mut Diffs<'_>) -> bool {
    let Some(diff) = diffs.at(&entry.api_version) else { return false };
    entry.fields.remove(&diff.changed);
    entry.fields.remove(&diff.removed);
    !entry.fields.is_empty()
}

fn conflicts(managed: &Managed, diffs: &mut Diffs<'_>) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for entry in &managed.entries {
        let Some(diff) = diffs.at(&entry.api_version) else { continue };
        let paths = entry.fields.intersection(&diff.changed).paths();
        let manager = entry.printed();
        conflicts.extend(paths.into_iter().map(|path| Conflict { manager: manager.clone(), path }));
    }
    conflicts
}

/// Merges the oldest managers that came to their fields by updates, version by version, until few enough are left.
fn cap(managed: &mut Managed) {
    let updaters = |managed: &Managed| {
        managed.entries.iter().filter(|entry| entry.operation == Operation::Update).count()
    };
    let mut beyond = updaters(managed).saturating_sub(MOST_UPDATERS);
    if beyond == 0 {
        return;
    }
    let (mut updates, applies): (Vec<Entry>, Vec<Entry>) = std::mem::take(&mut managed.entries)
        .into_iter()
        .partition(|entry| entry.operation == Operation::Update);
    updates.sort_by(|one, other| (&one.time, &one.manager).cmp(&(&other.time, &other.manager)));
    managed.entries = applies;
    let mut buckets: Vec<Entry> = Vec::new();
    for entry in updates {
        match buckets.iter_mut().find(|bucket| bucket.api_version == entry.api_version) {
            Some(bucket) if beyond > 0 => {
                ANCIENT.clone_into(&mut bucket.manager);
                bucket.subresource.clear();
                bucket.fields.add(entry.fields);
                bucket.time = entry.time;
                beyond -= 1;
            }
            None if beyond > 0 => buckets.push(entry),
            _ => managed.entries.push(entry),
        }
    }
    managed.entries.extend(buckets);
}
