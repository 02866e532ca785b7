//! The verbs of the API, as discovery, authorization and admission name them.

use std::fmt;
use std::str::FromStr;

/// A verb of a request on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Make a new object.
    Create,
    /// Remove one object.
    Delete,
    /// Remove every object that matches.
    DeleteCollection,
    /// Read one object.
    Get,
    /// Read a collection.
    List,
    /// Change an object by a patch.
    Patch,
    /// Replace an object.
    Update,
    /// Follow a collection.
    Watch,
}

impl Verb {
    /// All verbs in the order in which discovery lists them.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Delete,
        Self::DeleteCollection,
        Self::Get,
        Self::List,
        Self::Patch,
        Self::Update,
        Self::Watch,
    ];

    /// The verb as discovery and authorization spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text was not a verb.
#[derive(Debug, thiserror::Error)]
#[error("unknown verb {0:?}")]
pub struct UnknownVerb(String);

impl FromStr for Verb {
    type Err = UnknownVerb;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|v| v.as_str() == text)
            .ok_or_else(|| UnknownVerb(text.to_owned()))
    }
}
