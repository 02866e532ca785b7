//! What the engine is asked: one [`Request`], already authenticated and authorized.
//!
//! Refuses to know HTTP: paths, headers and media types were taken apart by the caller.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::params::Params;
use crate::row::Row;

/// Who asks, as authentication found.
#[derive(Clone, Debug, Default)]
pub struct UserInfo {
    /// User name, `system:serviceaccount:default:web`.
    pub name: String,
    /// Unique id, where the authenticator gives one.
    pub uid: String,
    /// Groups, `system:authenticated` among them.
    pub groups: Vec<String>,
    /// Further facts about the user.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// How a patch body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902, `application/json-patch+json`.
    Json,
    /// RFC 7386, `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// Server-side apply, `application/apply-patch+yaml`; the body was made JSON.
    Apply,
}

impl PatchType {
    /// The media type, as errors name it.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// What is to be done, with the bodies that go with it: JSON, bounded in size by the caller. The
/// body of a deletion may be empty.
#[derive(Clone, Debug)]
pub enum Action {
    /// Read one object.
    Get,
    /// Read a collection.
    List,
    /// Follow a collection.
    Watch,
    /// Make an object.
    Create(Bytes),
    /// Replace an object.
    Update(Bytes),
    /// Change an object.
    Patch(PatchType, Bytes),
    /// Remove an object; the body may hold DeleteOptions.
    Delete(Bytes),
    /// Remove all that match; the body may hold DeleteOptions.
    DeleteCollection(Bytes),
}

impl Action {
    /// The verb, as authorization names it.
    pub fn verb(&self) -> crate::Verb {
        use crate::Verb;
        match self {
            Self::Get => Verb::Get,
            Self::List => Verb::List,
            Self::Watch => Verb::Watch,
            Self::Create(_) => Verb::Create,
            Self::Update(_) => Verb::Update,
            Self::Patch(..) => Verb::Patch,
            Self::Delete(_) => Verb::Delete,
            Self::DeleteCollection(_) => Verb::DeleteCollection,
        }
    }
}

/// One request on a resource.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub user: Arc<UserInfo>,
    /// The resource in the version asked for.
    pub row: Arc<Row>,
    /// Namespace of the path; `None` for cluster-scoped resources and for all namespaces.
    pub namespace: Option<String>,
    /// Name of the path.
    pub name: Option<String>,
    /// Subresource of the path.
    pub subresource: Option<String>,
    /// What to do.
    pub action: Action,
    /// The parsed query.
    pub params: Params,
}
