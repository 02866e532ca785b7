//! Questions about a client error that every caller asks. Knows nothing of who asks.

use kube::core::Status;

/// The API server's `Status` inside a client error, if the server answered at all.
pub fn status_of(error: &kube::Error) -> Option<&Status> {
    match error {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

/// Reads the meaning of a failed request from its error.
pub trait ErrorExt {
    /// HTTP status code of the server's answer; `None` when there was no answer.
    fn code(&self) -> Option<u16>;
    /// Kubernetes' machine-readable reason, empty when there was no answer.
    fn reason(&self) -> &str;

    /// 404: the object (or the resource) does not exist.
    fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }
    /// 409 `Conflict`: the object changed since it was read.
    fn is_conflict(&self) -> bool {
        self.reason() == "Conflict"
    }
    /// 410: the requested resource version is no longer available.
    fn is_expired(&self) -> bool {
        self.code() == Some(410) || matches!(self.reason(), "Expired" | "Gone")
    }
    /// A create was refused because its namespace is being deleted.
    fn is_namespace_terminating(&self) -> bool;
}

impl ErrorExt for kube::Error {
    fn code(&self) -> Option<u16> {
        status_of(self).map(|status| status.code)
    }

    fn reason(&self) -> &str {
        status_of(self).map_or("", |status| &status.reason)
    }

    fn is_namespace_terminating(&self) -> bool {
        status_of(self).and_then(|status| status.details.as_ref()).is_some_and(|details| {
            details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
        })
    }
}
