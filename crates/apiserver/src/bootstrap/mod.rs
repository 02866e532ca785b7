//! The objects a cluster has from its first moment, written through the resource engine and completed again at
//! every start: system namespaces, priority classes, RBAC defaults, the API server's own Service.
//!
//! What is there already is not written again; what an administrator took away by hand stays away where
//! Kubernetes says so (`autoupdate: "false"`). Refuses to know HTTP.

pub(crate) mod flow;
mod objects;
pub(crate) mod policy;
mod reconcile;

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, TryFutureExt, future::try_join_all};
use meta::Status;
use registry::{Action, Params, Registry, Request, UserInfo};
use serde_json::{Value, json};

use crate::identity;

use objects::Fixed;
pub(crate) use objects::{Advertised, endpoints};
pub(crate) use reconcile::fill_aggregates;

/// Where an object is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

/// An object that others change at the same time is tried so often.
const MOST_ATTEMPTS: usize = 8;

/// Writes as the API server itself.
pub(crate) struct Writer {
    registry: Arc<Registry>,
    user: Arc<UserInfo>,
}

impl Writer {
    /// Writes into `registry`.
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, user: identity::authenticated("system:apiserver", [identity::MASTERS]) }
    }

    /// The stored object, from memory.
    pub(crate) fn read(&self, place: Place<'_>) -> Option<Value> {
        let row = self.registry.rows().get(place.group, place.version, place.resource)?;
        let namespace = (!place.namespace.is_empty()).then_some(place.namespace);
        self.registry.get(row, namespace, place.name).map(|object| object.value(row))
    }

    /// All stored objects of a kind, from memory.
    pub(crate) fn list(&self, group: &str, resource: &str) -> Vec<Value> {
        let Some(row) = self.registry.rows().by_resource(group, resource) else {
            return Vec::new();
        };
        self.registry.list(row, None).iter().map(|object| object.value(row)).collect()
    }

    /// Makes the object unless it exists.
    pub(crate) async fn create(&self, place: Place<'_>, object: &Value) -> Result<(), Status> {
        if self.read(place).is_some() {
            return Ok(());
        }
        match self.send(place, None, None, Action::Create(body(object))).await {
            Err(status) if status.code == 409 => Ok(()),
            other => other,
        }
    }

    /// Replaces the object.
    async fn replace(&self, place: Place<'_>, object: &Value) -> Result<(), Status> {
        self.send(place, Some(place.name), None, Action::Update(body(object))).await
    }

    /// Replaces the object's status.
    pub(crate) async fn status(&self, place: Place<'_>, object: &Value) -> Result<(), Status> {
        self.send(place, Some(place.name), Some("status"), Action::Update(body(object))).await
    }

    /// Makes the object, or changes what is there as `merge` says; `merge` returns none if nothing is to do.
    pub(crate) async fn ensure(
        &self,
        place: Place<'_>,
        wanted: &Value,
        merge: impl Fn(&Value) -> Option<Value> + Send,
    ) -> Result<(), Status> {
        let mut attempts = 0;
        loop {
            let written = match self.read(place) {
                None => self.create(place, wanted).await,
                Some(stored) => match merge(&stored) {
                    None => Ok(()),
                    Some(merged) => self.replace(place, &merged).await,
                },
            };
            attempts += 1;
            match written {
                // Another server does the same at this moment.
                Err(status) if status.code == 409 && attempts < MOST_ATTEMPTS => {
                    // If it cannot be read, the next attempt says so.
                    let _ = self.registry.store().latest().await;
                }
                written => return written,
            }
        }
    }

    /// Removes the object; that it is gone already is success.
    pub(crate) async fn delete(&self, place: Place<'_>) -> Result<(), Status> {
        self.remove(place, Bytes::new()).await
    }

    /// Removes the object as it was at that resource version; that it is gone already is success,
    /// that it has changed is a conflict.
    pub(crate) async fn delete_at(&self, place: Place<'_>, version: &str) -> Result<(), Status> {
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "preconditions": {"resourceVersion": version}
        });
        self.remove(place, body(&options)).await
    }

    async fn remove(&self, place: Place<'_>, options: Bytes) -> Result<(), Status> {
        let gone = self.send(place, Some(place.name), None, Action::Delete(options)).await;
        gone.or_else(|status| if status.code == 404 { Ok(()) } else { Err(status) })
    }

    async fn send(
        &self,
        place: Place<'_>,
        name: Option<&str>,
        subresource: Option<&str>,
        action: Action,
    ) -> Result<(), Status> {
        let Some(row) = self.registry.rows().get(place.group, place.version, place.resource) else {
            return Err(Status::no_such_path());
        };
        let request = Request {
            user: self.user.clone(),
            row: row.clone(),
            namespace: (!place.namespace.is_empty()).then(|| place.namespace.to_owned()),
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
            action,
            params: Params::default(),
        };
        self.registry.execute(request).await.map(drop)
    }
}

fn body(object: &Value) -> Bytes {
    Bytes::from(object.to_string())
}

/// Why a cluster could not be given its first objects.
#[derive(Debug, thiserror::Error)]
#[error("write {resource} {name}")]
pub struct BootstrapError {
    resource: String,
    name: String,
    #[source]
    status: Status,
}

impl BootstrapError {
    fn new((resource, name): (&str, &str), status: Status) -> Self {
        Self { resource: resource.to_owned(), name: name.to_owned(), status }
    }
}

/// Writes everything that is missing: namespaces first, then all the rest at once; the store commits what
/// waits together.
pub(crate) async fn run(writer: &Writer, advertised: &Advertised) -> Result<(), BootstrapError> {
    let ranges = objects::ranges(writer, advertised)
        .map_err(|status| BootstrapError::new(("servicecidrs", "kubernetes"), status));
    let namespaces = objects::namespaces();
    futures::try_join!(create_all(writer, &namespaces), ranges)?;
    let defaults = reconcile::with_aggregates(policy::defaults());
    let rules = defaults.iter().map(|default| ensure_default(writer, default).boxed());
    let (rest, own) = (objects::all(), endpoints(writer, advertised));
    let authentication = objects::publish_authentication(writer, advertised).map_err(|status| {
        BootstrapError::new(("configmaps", "extension-apiserver-authentication"), status)
    });
    let flow = flow::ensure(writer)
        .map_err(|(name, status)| BootstrapError::new(("flow control's", &name), status));
    futures::try_join!(
        flow,
        authentication,
        create_all(writer, &rest),
        try_join_all(rules),
        own.map_err(|status| BootstrapError::new(("endpoints", "kubernetes"), status)),
    )?;
    Ok(())
}

async fn create_all(writer: &Writer, batch: &[(Fixed, Value)]) -> Result<(), BootstrapError> {
    let creations = batch.iter().map(|(place, object)| {
        let place = place.get();
        let created = writer.create(place, object);
        created
            .map_err(move |status| BootstrapError::new((place.resource, place.name), status))
            .boxed()
    });
    try_join_all(creations).await.map(drop)
}

async fn ensure_default(writer: &Writer, default: &policy::Default) -> Result<(), BootstrapError> {
    let place = reconcile::place(default);
    let merge = |stored: &Value| reconcile::merged(stored, &default.object);
    let ensured = async {
        // A binding cannot be led to another role: it is made anew.
        let stored = writer.read(place);
        if stored.is_some_and(|stored| reconcile::leads_elsewhere(&stored, &default.object)) {
            writer.delete(place).await?;
        }
        writer.ensure(place, &default.object, merge).await
    };
    ensured.await.map_err(|status| BootstrapError::new((place.resource, place.name), status))
}
