//! The objects a cluster has from its first moment, written through the resource engine and completed again at
//! every start: system namespaces, priority classes, RBAC defaults, the API server's own Service.
//!
//! What is there already is not written again; what an administrator took away by hand stays away where
//! Kubernetes says so (`autoupdate: "false"`). Refuses to know HTTP.

mod objects;
pub(crate) mod policy;
mod reconcile;

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use meta::Status;
use registry::{Action, Params, Registry, Request, UserInfo};
use serde_json::Value;

use crate::identity;

pub(crate) use objects::{Advertised, endpoints};

/// How many objects are being written at once; the store commits what waits together.
const AT_ONCE: usize = 256;

/// Where an object is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

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

    /// Makes the object unless it exists.
    async fn create(&self, place: Place<'_>, object: &Value) -> Result<(), Status> {
        if self.read(place).is_some() {
            return Ok(());
        }
        match self.send(place, None, Action::Create(body(object))).await {
            Err(status) if status.code == 409 => Ok(()),
            other => other,
        }
    }

    /// Replaces the object.
    async fn replace(&self, place: Place<'_>, object: &Value) -> Result<(), Status> {
        self.send(place, Some(place.name.to_owned()), Action::Update(body(object))).await
    }

    /// Makes the object, or changes what is there as `merge` says; `merge` returns none if nothing is to do.
    pub(crate) async fn ensure(
        &self,
        place: Place<'_>,
        wanted: &Value,
        merge: impl Fn(&Value) -> Option<Value>,
    ) -> Result<(), Status> {
        match self.read(place) {
            None => self.create(place, wanted).await,
            Some(stored) => match merge(&stored) {
                None => Ok(()),
                Some(merged) => self.replace(place, &merged).await,
            },
        }
    }

    async fn send(
        &self,
        place: Place<'_>,
        name: Option<String>,
        action: Action,
    ) -> Result<(), Status> {
        let Some(row) = self.registry.rows().get(place.group, place.version, place.resource) else {
            return Err(Status::no_such_path());
        };
        let request = Request {
            user: self.user.clone(),
            row: row.clone(),
            namespace: (!place.namespace.is_empty()).then(|| place.namespace.to_owned()),
            name,
            subresource: None,
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
#[error("write {resource} {name}: {status}")]
pub struct BootstrapError {
    resource: String,
    name: String,
    #[source]
    status: Status,
}

/// Writes everything that is missing: namespaces first, then all the rest together.
pub(crate) async fn run(writer: &Writer, advertised: &Advertised) -> Result<(), BootstrapError> {
    let fail = |place: Place<'_>| {
        let (resource, name) = (place.resource.to_owned(), place.name.to_owned());
        move |status| BootstrapError { resource, name, status }
    };
    let namespaces = objects::namespaces();
    let rest = objects::all(advertised);
    for batch in [namespaces, rest] {
        stream::iter(batch)
            .map(|(place, object)| async move {
                writer.create(place.get(), &object).await.map_err(fail(place.get()))
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
    }
    let defaults = reconcile::with_aggregates(policy::defaults());
    stream::iter(&defaults)
        .map(|default| async move {
            let place = reconcile::place(default);
            writer
                .ensure(place, &default.object, |stored| reconcile::merged(stored, &default.object))
                .await
                .map_err(fail(place))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    endpoints(writer, advertised).await.map_err(|status| BootstrapError {
        resource: "endpoints".into(),
        name: "kubernetes".into(),
        status,
    })
}
