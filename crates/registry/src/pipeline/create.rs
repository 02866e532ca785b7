//! A new object's way through the stages after decoding.

use bytes::Bytes;
use meta::{Status, time};
use serde_json::Value;
use store::Expect;

use super::commit::{Failure, commit_claiming};
use super::{Context, MOST_RETRIES, admit, ownership, prepare, result, validate};
use crate::admission::Operation;
use crate::allocate::Claims;
use crate::convert;
use crate::object::{Object, encode_managed, meta_text, metadata};
use crate::outcome::Answer;

/// A generated name that is taken is replaced this many times.
const MOST_NAMES: usize = 8;

/// Creates an object that was decoded in the served version. Who manages its fields, an apply says.
///
/// # Errors
/// The `Status` to answer with.
pub(crate) async fn create(context: &Context<'_>, object: Value, managed: Option<Bytes>) -> Answer {
    if !meta_text(&object, "resourceVersion").is_empty() {
        return Err(Status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let mut object = convert::to_stored(context.row(), object);
    schema::rules::default(&context.stored.kind, &mut object);
    let managed = match managed {
        Some(managed) => managed,
        None => ownership::created(context, &mut object)?,
    };
    let name = meta_text(&object, "name").to_owned();
    let subject =
        admit::Subject { operation: Operation::Create, subresource: None, name: &name, old: None };
    admit::mutate(context, subject, &mut object).await?;
    // What may have to be made again, under another name or address, is copied; nothing else.
    let generates = meta_text(&object, "name").is_empty();
    let copies = generates || context.stored.strategy.allocates();
    let (mut names, mut last) = (0, String::new());
    for _ in 0..MOST_RETRIES {
        let mut whole = if copies { object.clone() } else { std::mem::take(&mut object) };
        let generated = prepare_create(context, &mut whole);
        let mut claims = claim(context, &mut whole, None).await?;
        validate::create(context, &whole)?;
        let name = meta_text(&whole, "name").to_owned();
        admit::validate(context, admit::Subject { name: &name, ..subject }, Some(&whole)).await?;
        let along = context.take_along();
        let claims_more = along.is_conditional();
        claims.extend(along.claims);
        let key = context.key(&name)?;
        if context.request.params.dry_run {
            if context.engine.latest().await?.get(&key).is_some() {
                return Err(taken(context, &key, &whole).await);
            }
            ownership::restore(&mut whole, &managed);
            return Ok(result::value_outcome(context, 201, whole, None));
        }
        let bytes = encode_managed(&whole, &managed);
        match commit_claiming(context, &key, Expect::Absent, &whole, bytes, claims).await {
            Ok(record) => {
                let object = Object::new(context.row(), key, record);
                return Ok(result::object_outcome(context, 201, &object));
            }
            Err(Failure::Conflict) => {
                // The object may not be there yet, but something that it claims may have changed.
                let is_there = context.engine.latest().await?.get(&key).is_some();
                names += usize::from(is_there);
                if generated {
                    last = name;
                    if names >= MOST_NAMES {
                        break;
                    }
                } else if is_there || !(copies || claims_more) {
                    return Err(taken(context, &key, &whole).await);
                }
            }
            Err(Failure::Refused(status)) => return Err(status),
        }
        if !copies {
            object = whole;
        }
    }
    if !generates {
        return Err(Status::service_unavailable(
            "others take addresses, ports or quota at the same time; try again",
        ));
    }
    Err(Status::generate_name_conflict(&context.resource(), &last, 1))
}

/// Why a new object cannot have its name.
async fn taken(context: &Context<'_>, key: &store::Key, object: &Value) -> Status {
    let (resource, name) = (context.resource(), meta_text(object, "name"));
    let mut status = match meta_text(object, "generateName") {
        "" => Status::already_exists(&resource, name),
        _ => Status::generate_name_conflict(&resource, name, 1),
    };
    let holder = context.engine.latest().await.ok().and_then(|there| there.get(key).cloned());
    if holder.is_some_and(|holder| holder.note.deleting()) {
        status.message = format!("object is being deleted: {}", status.message);
    }
    status
}

/// The prepare stage of a new object. True if a name was generated.
fn prepare_create(context: &Context<'_>, object: &mut Value) -> bool {
    prepare::fill_system_fields(context, object);
    let generated = prepare::generate_name(object);
    let row = &context.stored;
    row.strategy.prepare_create(object, &context.request.user, row.has_status());
    if object["status"].as_object().is_some_and(serde_json::Map::is_empty) {
        object["status"] = schema::rules::new_status(&row.kind);
    }
    context.warn(schema::rules::prepare_create(&row.kind, object));
    row.strategy.stamp(object, &Value::Null, &|| now(context));
    generated
}

/// Chooses the addresses and ports of an object about to be written; most kinds need none.
pub(super) async fn claim(
    context: &Context<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<Claims, Status> {
    if !context.stored.strategy.allocates() {
        return Ok(Claims::default());
    }
    let snapshot = match old {
        // A change was read from the newest already.
        Some(_) => context.engine.store.snapshot(),
        None => context.engine.latest().await?,
    };
    context.engine.allocator.claim(&snapshot, object, old, &now(context))
}

/// The time of the write, as `metadata` spells it.
pub(crate) fn now(context: &Context<'_>) -> String {
    time::seconds(context.now)
}

/// Takes the resource version off an object that an update turned into a creation.
pub(super) fn forget_version(object: &mut Value) {
    metadata(object).remove("resourceVersion");
}
