//! PodNodeSelector: pods of a namespace run only where the namespace says.

use std::collections::BTreeMap;

use meta::{GroupResource, Status};
use registry::{Admit, Attributes, Operation, Row};
use serde_json::Value;

use super::{Admitted, child, decided, failed, is_pod, read, text};

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// In the configuration, what holds for namespaces that say nothing.
const DEFAULT: &str = "clusterDefaultNodeSelector";

type Labels = BTreeMap<String, String>;

/// The plugin.
pub(super) struct PodNodeSelector {
    selectors: Value,
}

impl PodNodeSelector {
    /// With `podNodeSelectorPluginConfig`, or nothing.
    pub(super) fn configured(configuration: &Value) -> Self {
        Self { selectors: configuration["podNodeSelectorPluginConfig"].clone() }
    }
}

impl Admit for PodNodeSelector {
    fn name(&self) -> &'static str {
        "PodNodeSelector"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        operation == Operation::Create && is_pod(row, subresource)
    }

    fn mutate<'a>(&'a self, attributes: &'a Attributes<'a>, pod: &'a mut Value) -> Admitted<'a> {
        decided(self.select(attributes, pod))
    }
}

impl PodNodeSelector {
    fn select(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        let name = attributes.namespace.unwrap_or_default();
        let namespace = read(attributes, "", "namespaces", None, name)
            .ok_or_else(|| Status::not_found(&GroupResource::new("", "namespaces"), name))?;
        let said = namespace["metadata"]["annotations"][ANNOTATION].as_str();
        let wanted =
            labels(said.unwrap_or_else(|| text(&self.selectors, DEFAULT))).map_err(failed)?;
        let allowed = labels(text(&self.selectors, name)).map_err(failed)?;
        let own = child(child(pod, "spec"), "nodeSelector");
        let selector = merge(own, &wanted, &allowed).map_err(|why| {
            // Upstream names the pod, even where it has no name yet.
            Status::forbidden(&GroupResource::new("", "pods"), text(&pod["metadata"], "name"), why)
        })?;
        if selector.is_empty() {
            if let Some(spec) = pod["spec"].as_object_mut() {
                spec.remove("nodeSelector");
            }
        } else {
            let selector = selector.into_iter().map(|(key, value)| (key, Value::from(value)));
            pod["spec"]["nodeSelector"] = selector.collect();
        }
        Ok(())
    }
}

/// The pod's selector with that of its namespace.
fn merge(own: &Value, wanted: &Labels, allowed: &Labels) -> Result<Labels, &'static str> {
    let own = own.as_object().into_iter().flatten();
    let mut selector: Labels =
        own.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    for (key, value) in wanted {
        if selector.get(key).is_some_and(|own| own != value) {
            return Err("pod node label selector conflicts with its namespace node label selector");
        }
        selector.insert(key.clone(), value.clone());
    }
    let is_allowed = selector.iter().all(|(key, value)| allowed.get(key) == Some(value));
    if !allowed.is_empty() && !is_allowed {
        return Err("pod node label selector labels conflict with its namespace whitelist");
    }
    Ok(selector)
}

/// Reads `a=b,c=d`.
fn labels(text: &str) -> Result<Labels, String> {
    let pair = |part: &str| match part.split('=').collect::<Vec<_>>().as_slice() {
        [key, value] => {
            let (key, value) = (key.trim(), value.trim());
            let mut problems = meta::names::is_qualified_name(key);
            problems.extend(meta::names::is_label_value(value));
            match problems.first() {
                None => Ok((key.to_owned(), value.to_owned())),
                Some(problem) => Err(problem.clone()),
            }
        }
        parts => Err(format!("invalid selector: [{}]", parts.join(" "))),
    };
    if text.is_empty() { Ok(Labels::new()) } else { text.split(',').map(pair).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_are_merged_or_refused() {
        let told = |own: Value, wanted: &str, allowed: &str| {
            let (wanted, allowed) =
                (labels(wanted).expect("labels"), labels(allowed).expect("labels"));
            merge(&own, &wanted, &allowed).map(|all| {
                all.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
            })
        };
        assert_eq!(told(json!({"a": "1"}), "b=2", ""), Ok("a=1,b=2".into()));
        assert_eq!(told(json!(null), "", ""), Ok(String::new()));
        assert!(
            told(json!({"b": "1"}), "b=2", "").is_err_and(|why| why.contains("conflicts with"))
        );
        assert!(told(json!({"a": "1"}), "b=2", "b=2").is_err_and(|why| why.contains("whitelist")));
        assert_eq!(told(json!({"a": "1"}), "b=2", "b=2,a=1"), Ok("a=1,b=2".into()));
        assert_eq!(labels("a"), Err("invalid selector: [a]".into()));
    }
}
