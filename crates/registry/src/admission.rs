//! The seam for admission plugins: what they see and when they are called.
//!
//! Owns the trait and its arguments; the plugins live with the API server.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use meta::Status;
use parking_lot::Mutex;
use serde_json::Value;
use store::{Expect, Guard, Write};

use crate::allocate::Claims;
use crate::header::Header;
use crate::object::{Object, encode};
use crate::registry::Registry;
use crate::request::UserInfo;
use crate::row::Row;
use crate::verb::Verb;

tokio::task_local! {
    /// What plugins say for the audit log of the request that this task carries out.
    static ANNOTATIONS: Mutex<Vec<(String, String)>>;
}

/// Runs a request and tells what plugins said of it for the audit log, whether or not it succeeded.
pub async fn annotated<T>(request: impl Future<Output = T>) -> (T, Vec<(String, String)>) {
    let run = async {
        let answer = request.await;
        (answer, ANNOTATIONS.with(|said| std::mem::take(&mut *said.lock())))
    };
    ANNOTATIONS.scope(Mutex::default(), run).await
}

/// The kind of write that asks for admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object (update, patch and subresources that write).
    Update,
    /// A removed object.
    Delete,
    /// A connection such as exec or proxy; asked for by the API server, never by the engine.
    Connect,
}

impl Operation {
    /// As webhooks and messages spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// What a plugin may know about the write in hand.
pub struct Attributes<'a> {
    /// The engine, for reads of other objects.
    pub registry: &'a Arc<Registry>,
    /// Who writes.
    pub user: &'a UserInfo,
    /// What kind of write it is.
    pub operation: Operation,
    /// The resource.
    pub row: &'a Row,
    /// The verb of the request: an update may be asked for by a patch.
    pub verb: Verb,
    /// The subresource, if one is written.
    pub subresource: Option<&'a str>,
    /// The namespace, for namespaced resources.
    pub namespace: Option<&'a str>,
    /// The object's name; empty on a create that leaves the name to `generateName`.
    pub name: &'a str,
    /// The stored object, for updates and deletions.
    pub old: Option<&'a Value>,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    pub(crate) warnings: &'a Mutex<Vec<String>>,
    pub(crate) along: &'a Mutex<Along>,
}

/// What plugins want written together with what they admit.
#[derive(Default)]
pub(crate) struct Along {
    pub(crate) claims: Claims,
    /// Kept until the write is over.
    pub(crate) held: Vec<Box<dyn Send>>,
}

impl Along {
    /// Whether another object must be as it was read.
    pub(crate) fn is_conditional(&self) -> bool {
        !self.claims.guards.is_empty()
    }
}

impl Attributes<'_> {
    /// Adds a text for a `Warning` header of the answer.
    pub fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().push(text.into());
    }

    /// Adds a line to what the audit log says of the request.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        // Nobody may want to know.
        let _ = ANNOTATIONS.try_with(|known| known.lock().push((key.into(), value.into())));
    }

    /// Writes another object in the transaction of this write, if it is still as it was `read`; the
    /// write is admitted anew if it is not. For `validate` only.
    pub fn write_along(&self, row: &Row, read: &Object, value: &Value) {
        let key = read.key().clone();
        let header = Header::of(value, &row.selectable);
        let claims = &mut self.along.lock().claims;
        claims.guards.push(Guard::new(key.clone(), Expect::Modified(read.revision())));
        claims.writes.push(Write::put(key, encode(value), header));
    }

    /// Keeps something, such as a lock, until this write is over.
    pub fn hold(&self, held: impl Send + 'static) {
        self.along.lock().held.push(Box::new(held));
    }
}

/// An admission plugin. Plugins are called in the order in which they were given to the engine:
/// first every `mutate`, then, after the engine's own validation, every `validate`.
pub trait Admit: Send + Sync {
    /// The plugin's name, `NamespaceLifecycle`, for messages and metrics.
    fn name(&self) -> &'static str;

    /// Whether the plugin wants to see such a write at all.
    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool;

    /// May change the object about to be written. Not called for deletions.
    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: &'a mut Value,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let _ = (attributes, object);
        Box::pin(async { Ok(()) })
    }

    /// May refuse the write. `object` is `None` for deletions.
    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let _ = (attributes, object);
        Box::pin(async { Ok(()) })
    }
}

/// Somebody who wants to know how long admission takes.
pub trait Measure: Send + Sync {
    /// A plugin, by its place among all, or a whole step (`None`) has come to its end.
    fn admitted(
        &self,
        plugin: Option<usize>,
        validates: bool,
        operation: Operation,
        rejected: bool,
        took: Duration,
    );
}
