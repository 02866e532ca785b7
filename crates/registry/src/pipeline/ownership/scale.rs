//! Who manages the replicas of an object that is written through its scale.
//!
//! A scale has one field that anybody manages, `spec.replicas`. Here it is the same field of the object, under the
//! object's version; other fields of the object are left alone.

use std::collections::BTreeSet;

use bytes::Bytes;
use meta::{Status, time};
use schema::apply::{Applied, Element, Entry, Managed, Reset, Set, Versions, Writer};
use schema::types::{self, Type};
use serde_json::Value;

use super::apply::{Body, run};
use super::{Live, Made, Make, manager};
use crate::pipeline::Context;

const VERSION: &str = "autoscaling/v1";

/// How a scale is asked for.
enum Wish<'a> {
    /// As the function makes it of the one there is.
    Update(&'a (dyn Fn(&Value) -> Result<Value, Status> + Send + Sync)),
    /// By applying.
    Apply(Body),
}

/// A write through the scale of an object.
pub(crate) struct Scaled<'a, 'c> {
    context: &'a Context<'c>,
    wish: Wish<'a>,
    /// The scale of an object.
    of: fn(&Value) -> Value,
    /// The object with the replicas of a scale.
    set: fn(&Value, &Value) -> Result<Value, Status>,
}

/// The one version of scales.
struct Scale;

impl Versions for Scale {
    fn type_in(&self, api_version: &str) -> Option<&'static Type> {
        (api_version == VERSION).then(|| types::by_kind("autoscaling", "v1", "Scale")).flatten()
    }

    fn convert(&self, object: &Value, _: &str, _: &str) -> Value {
        object.clone()
    }
}

impl<'a, 'c> Scaled<'a, 'c> {
    /// An update, given what makes the new scale of the old one.
    pub(crate) fn update(
        context: &'a Context<'c>,
        wish: &'a (dyn Fn(&Value) -> Result<Value, Status> + Send + Sync),
        of: fn(&Value) -> Value,
        set: fn(&Value, &Value) -> Result<Value, Status>,
    ) -> Self {
        Self { context, wish: Wish::Update(wish), of, set }
    }

    /// An apply of a body.
    ///
    /// # Errors
    /// 400 for what is no object.
    pub(crate) fn apply(
        context: &'a Context<'c>,
        body: &Bytes,
        of: fn(&Value) -> Value,
        set: fn(&Value, &Value) -> Result<Value, Status>,
    ) -> Result<Self, Status> {
        Ok(Self { context, wish: Wish::Apply(Body::read(body)?), of, set })
    }

    fn scaled(
        &self,
        writer: &Writer<'_>,
        live: &Live<'_>,
        managed: Managed,
    ) -> Result<(Value, Managed), Status> {
        let old = (self.of)(live.object);
        match &self.wish {
            Wish::Update(wish) => {
                let new = wish(&old)?;
                let after = writer.update(&old, &new, || managed.clone());
                Ok((new, after.unwrap_or(managed)))
            }
            Wish::Apply(body) => {
                let kind = meta::GroupVersionKind::new("autoscaling", "v1", "Scale");
                body.check(&kind)?;
                let live = Live { object: &old, managed: live.managed };
                let force = self.context.request.params.force == Some(true);
                let Applied { object, managed } = run(writer, &live, &body.object, managed, force)?;
                body.report(self.context)?;
                let decoded = schema::decode_value(&kind, &object, schema::FieldValidation::Ignore)
                    .map_err(|error| Status::new(500, "", error.to_string()))?;
                Ok((decoded.value, managed))
            }
        }
    }
}

impl Make for Scaled<'_, '_> {
    fn make(&self, live: &Live<'_>) -> Result<Made, Status> {
        let mut parent = Managed::read(live.managed);
        let reset = Reset::These(Set::default());
        let writer = Writer {
            manager: manager(self.context),
            subresource: "scale",
            api_version: VERSION,
            now: &time::seconds(self.context.now),
            reset: &reset,
            versions: &Scale,
        };
        let (scale, after) = self.scaled(&writer, live, to_scale(&parent))?;
        let object = (self.set)(live.object, &scale)?;
        from_scale(&mut parent, after, &self.context.row().api_version());
        Ok(Made { object, managed: Some(parent.to_json().into()) })
    }
}

fn replicas() -> [Element; 2] {
    ["spec", "replicas"].map(|name| Element::Field(name.into()))
}

/// The managers of an object's replicas as those of its scale.
fn to_scale(parent: &Managed) -> Managed {
    let path = replicas();
    let of_replicas = parent.entries.iter().filter(|entry| entry.fields.has(&path));
    let entries = of_replicas.map(|entry| {
        let mut entry = entry.clone();
        entry.known_by = Some(std::mem::replace(&mut entry.api_version, VERSION.to_owned()));
        entry.fields = Set::of_fields(&[&["spec", "replicas"]]);
        entry
    });
    Managed { entries: entries.collect() }
}

/// Carries over to an object who manages its scale now.
fn from_scale(parent: &mut Managed, scale: Managed, api_version: &str) {
    let (path, field) = (replicas(), Set::of_fields(&[&["spec", "replicas"]]));
    let (kept, new): (Vec<Entry>, Vec<Entry>) =
        scale.entries.into_iter().partition(|entry| entry.known_by.is_some());
    let kept: BTreeSet<_> = kept.iter().map(Entry::identity).collect();
    parent.entries.retain_mut(|entry| {
        if entry.fields.has(&path) && !kept.contains(&entry.identity()) {
            entry.fields.remove(&field);
        }
        !entry.fields.is_empty()
    });
    for mut entry in new {
        if entry.fields.has(&path) {
            api_version.clone_into(&mut entry.api_version);
            entry.fields = field.clone();
            // As upstream: through a scale, nobody says when.
            entry.time = None;
            parent.entries.push(entry);
        }
    }
}
