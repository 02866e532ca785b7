//! DefaultStorageClass and DefaultIngressClass: claims and ingresses that name no class get the one marked as
//! default.

use registry::{Admit, Attributes, Operation, Row};
use serde_json::Value;

use super::{Admitted, child, decided, is_core, read_all, text};

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
        let class = default_class(
            &classes,
            &[
                "storageclass.kubernetes.io/is-default-class",
                "storageclass.beta.kubernetes.io/is-default-class",
            ],
        );
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
        let chosen = !ingress["spec"]["ingressClassName"].is_null()
            || !ingress["metadata"]["annotations"]["kubernetes.io/ingress.class"].is_null();
        if !chosen {
            let classes = read_all(attributes, "networking.k8s.io", "ingressclasses", None);
            if let Some(class) =
                default_class(&classes, &["ingressclass.kubernetes.io/is-default-class"])
            {
                child(ingress, "spec")["ingressClassName"] = class["metadata"]["name"].clone();
            }
        }
        super::fine()
    }
}

/// The class marked as default; of several, the one made last; of those, the first by name.
fn default_class<'a>(classes: &'a [Value], annotations: &[&str]) -> Option<&'a Value> {
    let marked = |class: &&Value| {
        annotations.iter().any(|annotation| class["metadata"]["annotations"][*annotation] == "true")
    };
    classes.iter().filter(marked).max_by(|left, right| {
        let made = |class: &'a Value| text(&class["metadata"], "creationTimestamp");
        let name = |class: &'a Value| text(&class["metadata"], "name");
        made(left).cmp(made(right)).then_with(|| name(right).cmp(name(left)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_default_wins() {
        let class = |name: &str, made: &str, annotation: &str| json!({"metadata": {"name": name, "creationTimestamp": made, "annotations": {annotation: "true"}}});
        let classes = [
            class("old", "2026-01-01T00:00:00Z", "a"),
            class("b", "2026-01-02T00:00:00Z", "a"),
            class("a", "2026-01-02T00:00:00Z", "beta"),
            class("none", "2026-01-03T00:00:00Z", "x"),
        ];
        let name = |annotations: &[&str]| {
            default_class(&classes, annotations).map(|class| text(&class["metadata"], "name"))
        };
        assert_eq!(name(&["a", "beta"]), Some("a"));
        assert_eq!(name(&["a"]), Some("b"));
        assert_eq!(name(&["c"]), None);
    }
}
