//! What a call to the container runtime can fail with. Knows nothing of what the caller does about it.

use tonic::{Code, Status};

/// A failed call to the runtime, printed the way Kubernetes prints it in events and statuses.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RuntimeError {
    /// The container, sandbox or image does not exist.
    #[error("rpc error: code = NotFound desc = {0}")]
    NotFound(String),
    /// The runtime cannot be reached, or is still starting.
    #[error("rpc error: code = Unavailable desc = {0}")]
    Unavailable(String),
    /// The call took longer than it may.
    #[error("rpc error: code = DeadlineExceeded desc = {0}")]
    DeadlineExceeded(String),
    /// The runtime does not implement the call.
    #[error("rpc error: code = Unimplemented desc = {0}")]
    Unimplemented(String),
    /// Any other refusal.
    #[error("rpc error: code = {code} desc = {message}")]
    Other {
        /// gRPC's name of the code, such as `Unknown`.
        code: &'static str,
        /// What the runtime says.
        message: String,
    },
}

impl RuntimeError {
    /// The runtime's own words, without the RPC wrapping.
    pub fn message(&self) -> &str {
        match self {
            Self::NotFound(m)
            | Self::Unavailable(m)
            | Self::DeadlineExceeded(m)
            | Self::Unimplemented(m) => m,
            Self::Other { message, .. } => message,
        }
    }

    /// The object asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

impl From<Status> for RuntimeError {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::NotFound => Self::NotFound(message),
            Code::Unavailable => Self::Unavailable(message),
            // tonic reports its own timeout as cancelled.
            Code::DeadlineExceeded | Code::Cancelled => Self::DeadlineExceeded(message),
            Code::Unimplemented => Self::Unimplemented(message),
            code => Self::Other { code: code_name(code), message },
        }
    }
}

/// gRPC's spelling of a status code.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_like_kubernetes() {
        let error =
            RuntimeError::from(Status::new(Code::Unknown, "failed to create containerd task"));
        assert_eq!(
            error.to_string(),
            "rpc error: code = Unknown desc = failed to create containerd task"
        );
        assert!(RuntimeError::from(Status::not_found("x")).is_not_found());
    }
}
