//! The failure the API answers with: code, reason, message, details. Holds the one set of
//! texts; knows nothing of HTTP.

use std::borrow::Cow;
use std::fmt;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::field::{FieldError, aggregate};
use crate::kind::GroupResource;
use crate::quote::quote;

/// A failed request, as a `v1.Status` of status `Failure`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason such as `NotFound`.
    pub reason: Cow<'static, str>,
    /// Text for people.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<StatusDetails>>,
    /// A token with which a list can go on all the same; empty where there is none.
    pub continue_token: String,
}

/// What a [`Status`] is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusDetails {
    /// Name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Group of the resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource (or kind, where validation failed).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Uid of the object, where there is just one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Single causes, such as fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    /// Seconds after which trying again makes sense; 0 means unsaid.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

/// One cause of a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusCause {
    /// Machine-readable reason such as `FieldValueInvalid`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Text for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Path of the field.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl Status {
    /// A failure without details. Prefer the named constructors.
    pub fn new(
        code: u16,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            reason: reason.into(),
            message: message.into(),
            details: None,
            continue_token: String::new(),
        }
    }

    fn about(mut self, resource: &GroupResource, name: &str) -> Self {
        self.details = Some(Box::new(StatusDetails {
            name: name.to_owned(),
            group: resource.group.clone(),
            kind: resource.resource.clone(),
            ..StatusDetails::default()
        }));
        self
    }

    /// Adds when trying again makes sense.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// Adds a token with which a list can go on all the same.
    #[must_use]
    pub fn with_continue(mut self, token: String) -> Self {
        self.continue_token = token;
        self
    }

    /// Adds causes to the details.
    #[must_use]
    pub fn with_causes(mut self, causes: Vec<StatusCause>) -> Self {
        self.details.get_or_insert_default().causes = causes;
        self
    }

    /// 404: the object does not exist.
    #[must_use]
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} {} not found", quote(name)))
            .about(resource, name)
    }

    /// 404: nothing is served at this path.
    #[must_use]
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
            .with_causes(Vec::new())
    }

    /// 409: the name is taken.
    #[must_use]
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{resource} {} already exists", quote(name)))
            .about(resource, name)
    }

    /// 409: `generateName` found no free name.
    #[must_use]
    pub fn generate_name_conflict(resource: &GroupResource, name: &str, retry_after: u32) -> Self {
        let message = format!(
            "{resource} {} already exists, the server was not able to generate a unique name for the object",
            quote(name)
        );
        Self::new(409, "AlreadyExists", message).about(resource, name).with_retry_after(retry_after)
    }

    /// 409: the object changed or a precondition failed.
    #[must_use]
    pub fn conflict(resource: &GroupResource, name: &str, cause: impl fmt::Display) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {resource} {}: {cause}", quote(name));
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// 409: the object was modified since the version the client holds.
    #[must_use]
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 422: validation failed. `kind` is `(group, kind)`.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "errors end here")]
    pub fn invalid(kind: (&str, &str), name: &str, errors: Vec<FieldError>) -> Self {
        let qualified = GroupResource::new(kind.0, kind.1);
        let message = if errors.is_empty() {
            format!("{qualified} {} is invalid", quote(name))
        } else {
            format!("{qualified} {} is invalid: {}", quote(name), aggregate(&errors))
        };
        let causes = errors
            .iter()
            .map(|error| StatusCause {
                reason: error.kind.reason().to_owned(),
                message: error.body(),
                field: error.path.clone(),
            })
            .collect();
        let mut status = Self::new(422, "Invalid", message);
        status.details = Some(Box::new(StatusDetails {
            name: name.to_owned(),
            group: qualified.group,
            kind: qualified.resource,
            causes,
            ..StatusDetails::default()
        }));
        status
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: who are you. An empty message becomes the usual one.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.is_empty() {
            "not authorized".clone_into(&mut message);
        }
        Self::new(401, "Unauthorized", message)
    }

    /// 403: not allowed. `name` may be empty for collections, the resource for plain paths.
    #[must_use]
    pub fn forbidden(resource: &GroupResource, name: &str, cause: impl fmt::Display) -> Self {
        let message = if resource.resource.is_empty() {
            format!("forbidden: {cause}")
        } else if name.is_empty() {
            format!("{resource} is forbidden: {cause}")
        } else {
            format!("{resource} {} is forbidden: {cause}", quote(name))
        };
        Self::new(403, "Forbidden", message).about(resource, name)
    }

    /// 405: the path does not know the method.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message).with_causes(Vec::new())
    }

    /// 405: the resource does not know the verb.
    #[must_use]
    pub fn method_not_supported(resource: &GroupResource, verb: &str) -> Self {
        let message =
            format!("{verb} is not supported on resources of kind {}", quote_of(resource));
        Self::new(405, "MethodNotAllowed", message).about(resource, "")
    }

    /// 410: the revision asked for is no longer kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 410: gone for good.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, "Gone", message)
    }

    /// 413: the body exceeds `limit` bytes.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )
    }

    /// 415: none of the `accepted` media types was sent.
    #[must_use]
    pub fn unsupported_media_type<T: AsRef<str>>(accepted: &[T]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            join(accepted)
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 406: none of the `served` media types is acceptable to the client.
    #[must_use]
    pub fn not_acceptable<T: AsRef<str>>(served: &[T]) -> Self {
        let message = format!("only the following media types are accepted: {}", join(served));
        Self::new(406, "NotAcceptable", message)
    }

    /// 504: the server gave up waiting; trying again may help.
    #[must_use]
    pub fn timeout(message: impl fmt::Display, retry_after: u32) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {message}")).with_retry_after(retry_after)
    }

    /// 504 `Timeout` of a resource version from the future, which clients retry.
    #[must_use]
    pub fn too_large_resource_version(wanted: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {wanted}, current: {current}");
        Self::timeout(message, 1).with_causes(vec![StatusCause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        }])
    }

    /// 429: slow down.
    #[must_use]
    pub fn too_many_requests(message: impl Into<String>, retry_after: u32) -> Self {
        Self::new(429, "TooManyRequests", message).with_retry_after(retry_after)
    }

    /// 500: our fault.
    #[must_use]
    pub fn internal(message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
            .with_causes(vec![StatusCause { reason: String::new(), message, field: String::new() }])
    }

    /// 503: not now.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// Whether the reason is `reason`.
    #[must_use]
    pub fn is(&self, reason: &str) -> bool {
        self.reason == reason
    }

    /// The status as the JSON clients get.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

fn quote_of(resource: &GroupResource) -> String {
    quote(&resource.to_string())
}

fn join<T: AsRef<str>>(types: &[T]) -> String {
    types.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", "Status")?;
        map.serialize_entry("apiVersion", "v1")?;
        let mut metadata = serde_json::Map::new();
        if !self.continue_token.is_empty() {
            metadata.insert("continue".to_owned(), self.continue_token.as_str().into());
        }
        map.serialize_entry("metadata", &metadata)?;
        map.serialize_entry("status", "Failure")?;
        map.serialize_entry("message", &self.message)?;
        if !self.reason.is_empty() {
            map.serialize_entry("reason", &self.reason)?;
        }
        if let Some(details) = &self.details {
            map.serialize_entry("details", details)?;
        }
        map.serialize_entry("code", &self.code)?;
        map.end()
    }
}

#[derive(Default, Deserialize)]
struct WireMetadata {
    #[serde(default)]
    r#continue: String,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    metadata: WireMetadata,
    #[serde(default)]
    message: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    details: Option<Box<StatusDetails>>,
    #[serde(default)]
    code: u16,
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        Ok(Self {
            code: wire.code,
            reason: Cow::Owned(wire.reason),
            message: wire.message,
            details: wire.details,
            continue_token: wire.metadata.r#continue,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployments() -> GroupResource {
        GroupResource::new("apps", "deployments")
    }

    #[test]
    fn messages() {
        let check = |status: Status, code: u16, reason: &str, message: &str| {
            assert_eq!((status.code, &*status.reason, &*status.message), (code, reason, message));
        };
        let pods = GroupResource::new("", "pods");
        check(Status::not_found(&pods, "a"), 404, "NotFound", "pods \"a\" not found");
        check(
            Status::already_exists(&deployments(), "web"),
            409,
            "AlreadyExists",
            "deployments.apps \"web\" already exists",
        );
        check(
            Status::modified(&deployments(), "web"),
            409,
            "Conflict",
            "Operation cannot be fulfilled on deployments.apps \"web\": the object has been modified; please apply your changes to the latest version and try again",
        );
        check(
            Status::forbidden(&pods, "", "User \"u\" cannot list"),
            403,
            "Forbidden",
            "pods is forbidden: User \"u\" cannot list",
        );
        check(
            Status::forbidden(&GroupResource::default(), "", "no"),
            403,
            "Forbidden",
            "forbidden: no",
        );
        check(
            Status::method_not_supported(&deployments(), "patch"),
            405,
            "MethodNotAllowed",
            "patch is not supported on resources of kind \"deployments.apps\"",
        );
        check(
            Status::too_large(3_145_728),
            413,
            "RequestEntityTooLarge",
            "Request entity too large: limit is 3145728",
        );
        check(
            Status::not_acceptable(&["application/json", "application/yaml"]),
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/yaml",
        );
        check(Status::internal("boom"), 500, "InternalError", "Internal error occurred: boom");
        check(Status::timeout("slow", 0), 504, "Timeout", "Timeout: slow");
        check(Status::unauthorized(""), 401, "Unauthorized", "not authorized");
    }

    #[test]
    fn invalid_lists_causes() {
        let status = Status::invalid(
            ("apps", "Deployment"),
            "web",
            vec![FieldError::required("spec.selector", ""), FieldError::invalid("spec.x", 1, "no")],
        );
        assert_eq!(
            status.message,
            "Deployment.apps \"web\" is invalid: [spec.selector: Required value, spec.x: Invalid value: 1: no]"
        );
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(
            json,
            "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\"message\":\"Deployment.apps \\\"web\\\" is invalid: [spec.selector: Required value, spec.x: Invalid value: 1: no]\",\"reason\":\"Invalid\",\"details\":{\"name\":\"web\",\"group\":\"apps\",\"kind\":\"Deployment\",\"causes\":[{\"reason\":\"FieldValueRequired\",\"message\":\"Required value\",\"field\":\"spec.selector\"},{\"reason\":\"FieldValueInvalid\",\"message\":\"Invalid value: 1: no\",\"field\":\"spec.x\"}]},\"code\":422}"
        );
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }
}
