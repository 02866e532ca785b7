//! Server-side apply of a request's body: `application/apply-patch+yaml`.

use bytes::Bytes;
use meta::{GroupVersionKind, Status, StatusCause};
use schema::FieldValidation;
use schema::apply::{Applied, ApplyError, Conflict, Managed, Writer, printed};
use serde_json::Value;

use super::{Live, Made, Make, as_writer};
use crate::object::{meta_text, metadata};
use crate::pipeline::{Context, decode};

/// What kubectl's client-side apply leaves in annotations.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager that `kubectl apply --server-side` applies as.
const KUBECTL: &str = "kubectl";

/// An applied body, read once.
pub(crate) struct Apply<'a, 'c> {
    context: &'a Context<'c>,
    subresource: Option<&'static str>,
    body: Body,
}

/// What is applied, and its duplicate fields.
pub(super) struct Body {
    pub(super) object: Value,
    duplicates: Vec<String>,
}

impl Body {
    /// Reads a body that was made JSON.
    ///
    /// # Errors
    /// 400 for what is no object.
    pub(super) fn read(body: &Bytes) -> Result<Self, Status> {
        let (object, duplicates) = schema::decode::parse(body)
            .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
        if !object.is_object() {
            return Err(Status::bad_request(
                "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal into Go value of type map[string]interface {}",
            ));
        }
        Ok(Self { object, duplicates })
    }

    /// Refuses what is of another kind, or names managers.
    pub(super) fn check(&self, kind: &GroupVersionKind) -> Result<(), Status> {
        let text = |field: &str| self.object[field].as_str().unwrap_or_default();
        let (version, name) = (text("apiVersion"), text("kind"));
        if version != kind.api_version() || name != kind.kind {
            return Err(Status::bad_request(format!(
                "invalid object type: {}",
                go_kind(version, name)
            )));
        }
        if !self.object["metadata"]["managedFields"].is_null() {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        Ok(())
    }

    /// Reports fields that are given twice.
    pub(super) fn report(&self, context: &Context<'_>) -> Result<(), Status> {
        if self.duplicates.is_empty() {
            return Ok(());
        }
        let text = format!(
            "error converting YAML to JSON: yaml: unmarshal errors:\n  {}",
            self.duplicates.join("\n  ")
        );
        match context.request.params.field_validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => context.warn([text]),
            FieldValidation::Strict => {
                return Err(Status::bad_request(format!("error strict decoding YAML: {text}")));
            }
        }
        Ok(())
    }
}

/// Group, version and kind as Go prints them.
fn go_kind(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

impl<'a, 'c> Apply<'a, 'c> {
    /// Reads the body of an apply to the object or to a subresource of its kind.
    ///
    /// # Errors
    /// 400 for what is no object.
    pub(crate) fn new(
        context: &'a Context<'c>,
        subresource: Option<&'static str>,
        body: &Bytes,
    ) -> Result<Self, Status> {
        Ok(Self { context, subresource, body: Body::read(body)? })
    }

    /// Decodes what applying made, and keeps kubectl's annotation true.
    fn finish(&self, applied: Value) -> Result<Value, Status> {
        let (context, kind) = (self.context, &self.context.row().kind);
        let decoded = schema::decode_value(kind, &applied, FieldValidation::Ignore);
        let mut object = decoded
            .map_err(|error| {
                Status::new(
                    500,
                    "",
                    format!(
                        "failed to convert new object ({}) to proper version: {error}",
                        described(&applied)
                    ),
                )
            })?
            .value;
        if context.request.params.field_manager == KUBECTL {
            remember(&mut object, &self.body.object);
        }
        self.body.report(context)?;
        decode::match_namespace(context, &mut object)?;
        decode::check_name(context, &object)?;
        Ok(object)
    }
}

impl Make for Apply<'_, '_> {
    fn make(&self, live: &Live<'_>) -> Result<Made, Status> {
        let context = self.context;
        self.body.check(&context.row().kind)?;
        let applied = as_writer(context, self.subresource, |writer| {
            let force = context.request.params.force == Some(true);
            run(writer, live, &self.body.object, Managed::read(live.managed), force)
        });
        let Applied { object, managed } = applied?;
        let object = self.finish(object)?;
        let uid = meta_text(&object, "uid");
        if live.object.is_null() && !uid.is_empty() {
            return Err(Status::conflict(
                &context.resource(),
                context.name()?,
                format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                ),
            ));
        }
        Ok(Made { object, managed: Some(managed.to_json().into()) })
    }

    fn creates(&self) -> bool {
        self.subresource.is_none()
    }
}

/// Applies; what kubectl applied on the client's side before is its own.
pub(super) fn run(
    writer: &Writer<'_>,
    live: &Live<'_>,
    applied: &Value,
    managed: Managed,
    force: bool,
) -> Result<Applied, Status> {
    let refused = match writer.apply(live.object, applied, managed.clone(), force) {
        Ok(applied) => return Ok(applied),
        Err(refused) => refused,
    };
    let conflicts = match refused {
        ApplyError::Conflicts(conflicts) if writer.manager == KUBECTL => {
            let last = live.object["metadata"]["annotations"][LAST_APPLIED].as_str();
            match last.and_then(|last| serde_json::from_str::<Value>(last).ok()) {
                Some(last) => writer.beyond_last_applied(live.object, &last, conflicts),
                None => conflicts,
            }
        }
        ApplyError::Conflicts(conflicts) => conflicts,
        ApplyError::Typed(text) => return Err(untyped(applied, &text)),
    };
    if !conflicts.is_empty() {
        return Err(conflict(conflicts));
    }
    writer.apply(live.object, applied, managed, true).map_err(|error| match error {
        ApplyError::Typed(text) => untyped(applied, &text),
        ApplyError::Conflicts(conflicts) => conflict(conflicts),
    })
}

/// The refusal of something that is not of its kind's type. It is no bad request upstream, either.
fn untyped(applied: &Value, text: &str) -> Status {
    Status::new(
        500,
        "",
        format!("failed to create typed patch object ({}): {text}", described(applied)),
    )
}

/// Namespace, name and kind, as messages about applying name an object.
fn described(object: &Value) -> String {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    format!(
        "{}/{}; {}",
        meta_text(object, "namespace"),
        meta_text(object, "name"),
        go_kind(text("apiVersion"), text("kind"))
    )
}

/// The 409 that kubectl prints.
fn conflict(mut conflicts: Vec<Conflict>) -> Status {
    conflicts.sort_by(|one, other| one.manager.cmp(&other.manager));
    let message = match &conflicts[..] {
        [one] => format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            one.manager,
            printed(&one.path)
        ),
        many => {
            let mut lines = Vec::new();
            for of_one in many.chunk_by(|one, other| one.manager == other.manager) {
                lines.push(format!("conflicts with {}:", of_one[0].manager));
                lines.extend(of_one.iter().map(|one| format!("- {}", printed(&one.path))));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let causes = conflicts.iter().map(|one| StatusCause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {}", one.manager),
        field: printed(&one.path),
    });
    Status::new(409, "Conflict", message).with_causes(causes.collect())
}

/// Where kubectl's annotation is, it says what was applied last, for clients that still apply themselves.
fn remember(object: &mut Value, applied: &Value) {
    let Some(Value::Object(annotations)) = metadata(object).get_mut("annotations") else { return };
    if annotations.get(LAST_APPLIED).is_none_or(|last| last == "") {
        return;
    }
    let mut applied = applied.clone();
    if let Some(Value::Object(annotations)) = metadata(&mut applied).get_mut("annotations") {
        annotations.remove(LAST_APPLIED);
    }
    let text = applied.to_string();
    let text = text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    annotations.insert(LAST_APPLIED.to_owned(), format!("{text}\n").into());
    let bytes: usize =
        annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes > schema::rules::MOST_ANNOTATION_BYTES {
        annotations.remove(LAST_APPLIED);
    }
}
