//! NamespaceAutoProvision, which makes the namespace that an object is created in, and NamespaceExists, which
//! asks for it whenever anything in it is written.

use meta::{GroupResource, Status};
use registry::{Admit, Attributes, Object, Operation, Row};
use serde_json::{Value, json};

use super::{Admitted, decided, fine, forbid};
use crate::bootstrap::{Place, Writer};

/// The plugin.
pub(super) struct NamespaceAutoProvision;

impl Admit for NamespaceAutoProvision {
    fn name(&self) -> &'static str {
        "NamespaceAutoProvision"
    }

    fn handles(&self, operation: Operation, row: &Row, _: Option<&str>) -> bool {
        operation == Operation::Create && row.namespaced()
    }

    fn mutate<'a>(&'a self, write: &'a Attributes<'a>, object: &'a mut Value) -> Admitted<'a> {
        let missing = write.namespace.filter(|name| !write.dry_run && of(write, name).is_none());
        let Some(name) = missing else { return fine() };
        Box::pin(async move {
            let place =
                Place { group: "", version: "v1", resource: "namespaces", namespace: "", name };
            let namespace =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let made = Writer::new(write.registry.clone()).create(place, &namespace).await;
            made.map_err(|status| forbid(write, Some(object), status.message))
        })
    }
}

/// The plugin.
pub(super) struct NamespaceExists;

impl Admit for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn handles(&self, operation: Operation, row: &Row, _: Option<&str>) -> bool {
        operation != Operation::Connect && row.namespaced()
    }

    fn validate<'a>(&'a self, write: &'a Attributes<'a>, _: Option<&'a Value>) -> Admitted<'a> {
        let missing = write.namespace.filter(|name| of(write, name).is_none());
        decided(missing.map_or(Ok(()), |name| Err(not_found(name))))
    }
}

/// A namespace, if it is there.
pub(super) fn of(write: &Attributes<'_>, name: &str) -> Option<Object> {
    let row = write.registry.rows().by_resource("", "namespaces")?;
    write.registry.get(row, None, name)
}

/// There is none.
pub(super) fn not_found(name: &str) -> Status {
    Status::not_found(&GroupResource::new("", "namespaces"), name)
}
