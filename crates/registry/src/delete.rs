//! Deletion: at once, gracefully, or when the finalizers allow it.
//!
//! Owns the rules of grace periods, propagation policies and preconditions. Garbage collection
//! itself is a controller's.

mod collection;
mod options;

use std::sync::Arc;

use bytes::Bytes;
use meta::{GroupResource, Revision, Status, time};
use serde_json::Value;
use store::{Expect, Key, Record};

pub(crate) use collection::delete_collection;
pub(crate) use options::Options;

use crate::admission::Operation;
use crate::header::Header;
use crate::object::{Object, complete, encode_managed, meta_text, metadata, parse_apart};
use crate::outcome::{Answer, Outcome};
use crate::params::Propagation;
use crate::pipeline::{
    Context, Failure, MOST_RETRIES, Subject, admit_validate, commit, finalizer_names,
    object_outcome, restore, status_outcome, value_outcome, vanish,
};
use crate::pipeline::{FOREGROUND, ORPHAN};
use crate::registry::Registry;
use crate::request::Request;

/// DELETE of one object.
pub(crate) async fn delete(engine: &Arc<Registry>, request: &Request, body: &Bytes) -> Answer {
    let context = Context::new(engine, request)?;
    let options = Options::read(&context, body)?;
    let name = context.name()?;
    delete_named(&context, name, &options).await
}

/// What the rules make of a deletion.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// A graceful deletion is under way and this request does not shorten it.
    Pending,
    /// Store the object as it now is and leave it to others to finish.
    Mark,
    /// Remove it.
    Remove,
}

/// Deletes an object of the request's namespace.
///
/// # Errors
/// The `Status` to answer with.
pub(crate) async fn delete_named(context: &Context<'_>, name: &str, options: &Options) -> Answer {
    let key = context.key(name)?;
    for _ in 0..MOST_RETRIES {
        let snapshot = context.engine.latest().await?;
        let Some(record) = snapshot.get(&key).cloned() else {
            return Err(Status::not_found(&context.resource(), name));
        };
        drop(snapshot);
        let (mut old, managed) = parse_apart(&record.value);
        complete(&context.stored, record.modified, &mut old);
        check_preconditions(context, options, &old)?;
        let subject =
            Subject { operation: Operation::Delete, subresource: None, name, old: Some(&old) };
        admit_validate(context, subject, None).await?;
        let mut object = old.clone();
        let verdict = judge(context, options, &mut object);
        match carry_out(context, &key, (&record, &managed), verdict, object, options).await {
            Ok(outcome) => return Ok(outcome),
            Err(Failure::Conflict) => {}
            Err(Failure::Refused(status)) => return Err(status),
        }
    }
    Err(Status::modified(&context.resource(), name))
}

async fn carry_out(
    context: &Context<'_>,
    key: &Key,
    (record, managed): (&Arc<Record<Header>>, &Bytes),
    verdict: Verdict,
    mut object: Value,
    options: &Options,
) -> Result<Outcome, Failure> {
    let dry_run = options.dry_run;
    if dry_run || verdict == Verdict::Remove && context.stored.returned {
        restore(&mut object, managed);
    }
    match verdict {
        Verdict::Pending => {
            let object = Object::new(context.row(), key.clone(), record.clone());
            Ok(finished(context, 200, object.value(&context.stored), object.revision()))
        }
        Verdict::Mark => {
            let code = if options.orphan_dependents == Some(false) { 202 } else { 200 };
            if dry_run {
                return Ok(value_outcome(context, code, object, Some(record.modified)));
            }
            let bytes = encode_managed(&object, managed);
            if bytes == record.value {
                let object = Object::new(context.row(), key.clone(), record.clone());
                return Ok(object_outcome(context, code, &object));
            }
            let expect = Expect::Modified(record.modified);
            let record = commit(context, key, expect, &object, bytes).await?;
            let object = Object::new(context.row(), key.clone(), record);
            Ok(object_outcome(context, code, &object))
        }
        Verdict::Remove => {
            let revision = if dry_run {
                record.modified
            } else {
                vanish(context, key, record.modified, &object).await?
            };
            Ok(finished(context, 200, object, revision))
        }
    }
}

/// The answer to a deletion that is done: the object or a `Status`, as the kind has it.
fn finished(context: &Context<'_>, code: u16, object: Value, revision: Revision) -> Outcome {
    if context.stored.returned {
        return value_outcome(context, code, object, Some(revision));
    }
    let (name, uid) = (meta_text(&object, "name").to_owned(), meta_text(&object, "uid").to_owned());
    status_outcome(context, code, &name, &uid)
}

fn check_preconditions(
    context: &Context<'_>,
    options: &Options,
    old: &Value,
) -> Result<(), Status> {
    // Upstream names the kind where the resource belongs.
    let resource =
        || GroupResource::new(context.row().kind.group.clone(), context.row().kind.kind.clone());
    let name = meta_text(old, "name");
    if let Some(uid) = &options.uid {
        let current = meta_text(old, "uid");
        if uid != current {
            return Err(Status::conflict(
                &resource(),
                name,
                format!(
                    "the UID in the precondition ({uid}) does not match the UID in record ({current}). The object might have been deleted and then recreated"
                ),
            ));
        }
    }
    if let Some(version) = &options.resource_version {
        let current = meta_text(old, "resourceVersion");
        if version != current {
            return Err(Status::conflict(
                &resource(),
                name,
                format!(
                    "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({current}). The object might have been modified"
                ),
            ));
        }
    }
    Ok(())
}

/// Applies the rules to `object`, which is changed into what would be stored.
fn judge(context: &Context<'_>, options: &Options, object: &mut Value) -> Verdict {
    let graceful = match grace(context, options, object) {
        Grace::Pending => return Verdict::Pending,
        Grace::None => false,
        Grace::Period(seconds) => seconds > 0,
    };
    set_finalizers(object, deletion_finalizers(context, options, object));
    let held = !finalizer_names(object).is_empty() || !context.stored.strategy.may_vanish(object);
    context.stored.strategy.terminate(object);
    if graceful {
        return Verdict::Mark;
    }
    if held {
        mark(context, object);
        return Verdict::Mark;
    }
    Verdict::Remove
}

/// What a graceful deletion comes to.
#[derive(Debug, PartialEq)]
enum Grace {
    /// The kind is not deleted gracefully, or its grace is over.
    None,
    /// Already under way, and not to be shortened.
    Pending,
    /// The period that now holds; it is set in the object.
    Period(i64),
}

fn grace(context: &Context<'_>, options: &Options, object: &mut Value) -> Grace {
    // A negative period means the shortest one that is still graceful.
    let requested = options.grace_period.map(|p| if p < 0 { 1 } else { p });
    let Some(period) = context.stored.strategy.grace_period(object, requested) else {
        return Grace::None;
    };
    let deletion = meta_text(object, "deletionTimestamp").to_owned();
    if deletion.is_empty() {
        set_deletion(object, shifted(context.now, period), period);
        bump(object);
        return Grace::Period(period);
    }
    let current = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if current == 0 {
        return Grace::None;
    }
    // Only a shorter period may replace the one that runs.
    match requested {
        Some(mut period) if period < current => {
            let began =
                shifted(time::parse(&deletion).unwrap_or(context.now), current.saturating_neg());
            let mut end = shifted(began, period);
            if end < context.now {
                end = context.now;
                period = period.min(1);
            }
            set_deletion(object, end, period);
            Grace::Period(period)
        }
        _ => Grace::Pending,
    }
}

/// A time so many seconds later; periods come from clients and may be absurd.
fn shifted(time: jiff::Timestamp, seconds: i64) -> jiff::Timestamp {
    let seconds = time.as_second().saturating_add(seconds);
    let least = jiff::Timestamp::MIN.as_second();
    // The last second that every RFC 3339 reader takes: the end of the year 9999.
    jiff::Timestamp::from_second(seconds.clamp(least, 253_402_300_799 - 86_400)).unwrap_or(time)
}

fn set_deletion(object: &mut Value, end: jiff::Timestamp, period: i64) {
    let meta = metadata(object);
    meta.insert("deletionTimestamp".to_owned(), time::seconds(end).into());
    meta.insert("deletionGracePeriodSeconds".to_owned(), period.into());
}

/// Marks an object that finalizers keep as deleted now.
fn mark(context: &Context<'_>, object: &mut Value) {
    let deletion = time::parse(meta_text(object, "deletionTimestamp"));
    if deletion.is_none() {
        bump(object);
    }
    let end = deletion.filter(|d| *d <= context.now).unwrap_or(context.now);
    set_deletion(object, end, 0);
}

/// The start of a deletion is a change that controllers observe.
fn bump(object: &mut Value) {
    if let Some(generation) = object["metadata"]["generation"].as_i64().filter(|g| *g > 0) {
        metadata(object).insert("generation".to_owned(), (generation + 1).into());
    }
}

/// The finalizers after the garbage collector's two were set as policy, object and kind demand.
fn deletion_finalizers(context: &Context<'_>, options: &Options, object: &Value) -> Vec<String> {
    let current = finalizer_names(object);
    let policy = if !context.stored.strategy.collected() {
        Propagation::Background
    } else {
        match (options.orphan_dependents, options.propagation) {
            (Some(true), _) => Propagation::Orphan,
            (Some(false), _) => Propagation::Background,
            (None, Some(policy)) => policy,
            (None, None) if current.contains(&ORPHAN) => Propagation::Orphan,
            (None, None) if current.contains(&FOREGROUND) => Propagation::Foreground,
            (None, None) => Propagation::Background,
        }
    };
    let mut finalizers: Vec<String> = current
        .into_iter()
        .filter(|f| *f != ORPHAN && *f != FOREGROUND)
        .map(str::to_owned)
        .collect();
    match policy {
        Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
        Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
        Propagation::Background => {}
    }
    finalizers
}

fn set_finalizers(object: &mut Value, finalizers: Vec<String>) {
    if finalizers.is_empty() {
        metadata(object).remove("finalizers");
    } else {
        metadata(object).insert("finalizers".to_owned(), finalizers.into());
    }
}
