//! DefaultStorageClass and DefaultIngressClass: claims and ingresses that name no class get the one marked as
//! default.

use meta::Status;
use registry::{Admit, Attributes, Operation, Row};
use serde_json::Value;

use super::{Admitted, child, decided, forbid, is_core, read_all, text};

/// The plugin for claims.
pub(super) struct DefaultStorageClass;

/// The plugin for ingresses.
pub(super) struct DefaultIngressClass;

impl Admit for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        operation == Operation::Create
            && is_core(row, "persistentvolumeclaims")
            && subresource.is_none()
    }

    fn mutate<'a>(&'a self, attributes: &'a Attributes<'a>, claim: &'a mut Value) -> Admitted<'a> {
        // An empty name is a choice: no class.
        if !claim["spec"]["storageClassName"].is_null()
            || !claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"]
                .is_null()
        {
            return super::fine();
        }
        let classes = read_all(attributes, "storage.k8s.io", "storageclasses", None);
        let marked = defaults(&classes, "storageclass.kubernetes.io/is-default-class");
        // Of several, the one made last; of those, the first by name.
        let class = marked.into_iter().max_by(|left, right| {
            let made = |class: &Value| text(&class["metadata"], "creationTimestamp").to_owned();
            let name = |class: &Value| text(&class["metadata"], "name").to_owned();
            made(left).cmp(&made(right)).then_with(|| name(right).cmp(&name(left)))
        });
        if let Some(class) = class {
            child(claim, "spec")["storageClassName"] = class["metadata"]["name"].clone();
        }
        decided(Ok(()))
    }
}

impl Admit for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        operation == Operation::Create
            && row.resource.group == "networking.k8s.io"
            && row.resource.resource == "ingresses"
            && subresource.is_none()
    }

    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        ingress: &'a mut Value,
    ) -> Admitted<'a> {
        decided(ingress_class(attributes, ingress))
    }
}

fn ingress_class(attributes: &Attributes<'_>, ingress: &mut Value) -> Result<(), Status> {
    let chosen = !ingress["spec"]["ingressClassName"].is_null()
        || !ingress["metadata"]["annotations"]["kubernetes.io/ingress.class"].is_null();
    if chosen {
        return Ok(());
    }
    let classes = read_all(attributes, "networking.k8s.io", "ingressclasses", None);
    match defaults(&classes, "ingressclass.kubernetes.io/is-default-class").as_slice() {
        [] => Ok(()),
        [class] => {
            child(ingress, "spec")["ingressClassName"] = class["metadata"]["name"].clone();
            Ok(())
        }
        several => Err(forbid(
            attributes,
            Some(ingress),
            format!("{} default IngressClasses were found, only 1 allowed", several.len()),
        )),
    }
}

fn defaults<'a>(classes: &'a [Value], annotation: &str) -> Vec<&'a Value> {
    classes.iter().filter(|class| class["metadata"]["annotations"][annotation] == "true").collect()
}
