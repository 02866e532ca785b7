//! A stored object's way through the stages: update, patch and every subresource that writes.

use meta::{Revision, Status};
use serde_json::Value;
use store::{Expect, Key};

use super::commit::{Failure, commit_claiming, delete_record};
use super::metadata::{carry_over, finalizer_names};
use super::ownership::{self, Live, Made, Make};
use super::{Context, MOST_RETRIES, admit, create, prepare, result, validate};
use crate::admission::Operation;
use crate::allocate::Claims;
use crate::convert;
use crate::object::{Object, complete, encode_managed, meta_text, metadata, parse_apart};
use crate::outcome::{Answer, Outcome};
use crate::strategy::{certificate, generic, namespace, pod};

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but the status.
    Main,
    /// The status.
    Status,
    /// The conditions of a certificate signing request that decide it.
    Approval,
    /// A pod's ephemeral containers.
    EphemeralContainers,
    /// The resources of a pod's containers.
    Resize,
    /// A namespace's finalizers in its specification.
    Finalize,
    /// A pod's node. It is nobody's new wish, so the generation stays.
    Binding,
    /// Whatever else the engine itself changes: a scale.
    Any,
}

/// How a stored object is about to change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) part: Part,
    pub(crate) subresource: Option<&'static str>,
}

impl Change {
    /// An update or patch of the object itself.
    pub(crate) fn main() -> Self {
        Self { part: Part::Main, subresource: None }
    }

    /// A write through a subresource.
    pub(crate) fn through(subresource: &'static str, part: Part) -> Self {
        Self { part, subresource: Some(subresource) }
    }
}

/// What a change left behind.
pub(crate) enum Written {
    /// A stored object: the new one, or the old one where nothing changed.
    Stored(Object),
    /// An object that is not stored (dry run, or its last finalizer went), in its storage
    /// version.
    Gone(Value, Revision),
    /// The update created the object: the answer to that.
    Created(Outcome),
}

/// Changes the object of the request and answers with it.
///
/// `make` turns the stored object, in the served version, into the one asked for; it is called
/// again after a conflict.
pub(crate) async fn change(context: &Context<'_>, change: &Change, make: impl Make) -> Answer {
    Ok(match write(context, change, make).await? {
        Written::Stored(object) => result::object_outcome(context, 200, &object),
        Written::Gone(object, revision) => {
            result::value_outcome(context, 200, object, Some(revision))
        }
        Written::Created(outcome) => outcome,
    })
}

/// Changes the object of the request.
///
/// # Errors
/// The `Status` to answer with; a conflict that the request does not ask for is retried.
pub(crate) async fn write(
    context: &Context<'_>,
    change: &Change,
    make: impl Make,
) -> Result<Written, Status> {
    let name = context.name()?;
    let key = context.key(name)?;
    for _ in 0..MOST_RETRIES {
        let snapshot = context.engine.latest().await?;
        let Some(record) = snapshot.get(&key).cloned() else {
            return create_instead(context, change, name, &make).await;
        };
        drop(snapshot);
        let revision = record.modified;
        let (mut old, managed) = parse_apart(&record.value);
        complete(&context.stored, revision, &mut old);
        let Made { mut object, managed: decided } = if context.row().served_as_stored() {
            make.make(&Live { object: &old, managed: &managed })?
        } else {
            let served = convert::to_served(context.row(), old.clone());
            let made = make.make(&Live { object: &served, managed: &managed })?;
            Made { object: convert::to_stored(context.row(), made.object), ..made }
        };
        check_preconditions(context, &key, name, &mut object, &old)?;
        let engines = matches!(change.part, Part::Any | Part::Binding);
        if !engines {
            schema::rules::default(&context.stored.kind, &mut object);
        }
        let owners = match decided {
            Some(decided) => decided,
            // What the engine itself does is nobody's wish.
            None if engines => managed.clone(),
            None => {
                let through = change.subresource;
                ownership::track(context, through, Some(&old), &mut object, &managed)?
            }
        };
        let subject = admit::Subject {
            operation: Operation::Update,
            subresource: change.subresource,
            name,
            old: Some(&old),
        };
        admit::mutate(context, subject, &mut object).await?;
        prepare_update(context, change.part, &mut object, &old);
        let mut claims = if change.part == Part::Main {
            create::claim(context, &mut object, Some(&old)).await?
        } else {
            Claims::default()
        };
        validate_change(context, change.part, &object, &old)?;
        admit::validate(context, subject, Some(&object)).await?;
        let along = context.take_along();
        claims.extend(along.claims);
        if context.request.params.dry_run {
            ownership::restore(&mut object, &owners);
            return Ok(Written::Gone(object, revision));
        }
        if finished(context, &object, &old) {
            match vanish(context, &key, revision, &old).await {
                Ok(revision) => {
                    ownership::restore(&mut object, &owners);
                    return Ok(Written::Gone(object, revision));
                }
                Err(Failure::Conflict) => continue,
                Err(Failure::Refused(status)) => return Err(status),
            }
        }
        let bytes = encode_managed(&object, &owners);
        let only_times = || {
            owners != managed
                && encode_managed(&object, &managed) == record.value
                && ownership::same_but_times(&owners, &managed)
        };
        if bytes == record.value || only_times() {
            return Ok(Written::Stored(Object::new(context.row(), key, record)));
        }
        let expect = Expect::Modified(revision);
        match commit_claiming(context, &key, expect, &object, bytes, claims).await {
            Ok(record) => {
                return Ok(Written::Stored(Object::new(context.row(), key, record)));
            }
            Err(Failure::Conflict) => {}
            Err(Failure::Refused(status)) => return Err(status),
        }
    }
    Err(result::modified(context, name))
}

/// There is nothing to change: some kinds are created by an update then.
async fn create_instead(
    context: &Context<'_>,
    change: &Change,
    name: &str,
    make: &impl Make,
) -> Result<Written, Status> {
    let is_update = matches!(context.request.action, crate::request::Action::Update(_));
    let creates = make.creates() || (context.stored.upsert && is_update);
    if change.part != Part::Main || !creates {
        return Err(Status::not_found(&context.resource(), name));
    }
    let made = make.make(&Live { object: &Value::Null, managed: &bytes::Bytes::new() })?;
    if let Some(refused) = &context.request.params.create_refused {
        return Err((**refused).clone());
    }
    let mut object = made.object;
    create::forget_version(&mut object);
    Ok(Written::Created(create::create(context, object, made.managed).await?))
}

/// The resource version and uid that the new object claims must be those of the old one.
fn check_preconditions(
    context: &Context<'_>,
    key: &Key,
    name: &str,
    object: &mut Value,
    old: &Value,
) -> Result<(), Status> {
    let (uid, old_uid) = (meta_text(object, "uid"), meta_text(old, "uid"));
    if !uid.is_empty() && uid != old_uid {
        return Err(Status::conflict(
            &context.resource(),
            name,
            format!(
                "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}"
            ),
        ));
    }
    let version = meta_text(object, "resourceVersion");
    if version.is_empty() || version == "0" {
        if context.stored.conditional {
            return Err(version_required(context, name));
        }
        let current = old["metadata"]["resourceVersion"].clone();
        metadata(object).insert("resourceVersion".to_owned(), current);
    } else if version != meta_text(old, "resourceVersion") {
        return Err(result::modified(context, name));
    }
    Ok(())
}

fn version_required(context: &Context<'_>, name: &str) -> Status {
    let path = meta::FieldPath::new("metadata").child("resourceVersion");
    let error = meta::FieldError::invalid(path, 0, "must be specified for an update");
    let resource = &context.row().resource;
    let mut status = Status::invalid((&resource.group, &resource.resource), name, vec![error]);
    // Upstream prints the unsigned zero in hexadecimal.
    let hexadecimal = |text: &mut String| *text = text.replace("value: 0:", "value: 0x0:");
    hexadecimal(&mut status.message);
    for cause in status.details.iter_mut().flat_map(|d| d.causes.iter_mut()) {
        hexadecimal(&mut cause.message);
    }
    status
}

/// The prepare stage of a changed object.
fn prepare_update(context: &Context<'_>, part: Part, object: &mut Value, old: &Value) {
    let row = &context.stored;
    carry_over(object, old);
    match part {
        Part::Main => {
            row.strategy.prepare_update(object, old, row.has_status());
            schema::rules::prepare_update(&row.kind, object, old);
        }
        Part::Status => {
            row.strategy.prepare_status(object, old);
            generic::keep_metadata(object, old, row.status_keeps);
            schema::rules::prepare_status(&row.kind, object, old);
        }
        Part::Approval => certificate::prepare_approval(object, old),
        Part::EphemeralContainers => pod::prepare_ephemeral(object, old),
        Part::Resize => pod::prepare_resize(object, old),
        Part::Finalize => namespace::prepare_finalize(object, old),
        Part::Any | Part::Binding => {}
    }
    row.strategy.stamp(object, old, &|| create::now(context));
    if !matches!(part, Part::Status | Part::Approval | Part::Finalize | Part::Binding) {
        prepare::bump_generation(row, object, old);
    }
}

/// The validate stage of a changed object.
fn validate_change(
    context: &Context<'_>,
    part: Part,
    object: &Value,
    old: &Value,
) -> Result<(), Status> {
    match part {
        Part::Main | Part::Finalize => validate::update(context, object, old),
        Part::Status => validate::status(context, object, old),
        Part::Approval => validate::approval(context, object, old),
        Part::EphemeralContainers => {
            validate::part(context, object, old, schema::rules::validate_ephemeral)
        }
        Part::Resize => validate::part(context, object, old, schema::rules::validate_resize),
        Part::Any | Part::Binding => Ok(()),
    }
}

/// Whether the change took away what kept a deleted object.
fn finished(context: &Context<'_>, object: &Value, old: &Value) -> bool {
    let deleting = !old["metadata"]["deletionTimestamp"].is_null();
    let grace = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    deleting
        && grace == 0
        && finalizer_names(object).is_empty()
        && context.stored.strategy.may_vanish(object)
}

/// Removes an object whose deletion is complete.
pub(crate) async fn vanish(
    context: &Context<'_>,
    key: &Key,
    modified: Revision,
    object: &Value,
) -> Result<Revision, Failure> {
    let claims = if context.stored.strategy.allocates() {
        context.engine.allocator.release(&context.engine.store.snapshot(), object)
    } else {
        Claims::default()
    };
    delete_record(context, key, modified, claims).await
}
