//! Values of the downward API: pod fields and container resources. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as api;

use crate::resources;

/// What the downward API may need beyond the pod object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// The pod's addresses, primary first.
    pub(crate) pod_ips: Vec<String>,
    /// The node's addresses, primary first.
    pub(crate) host_ips: Vec<String>,
    /// The node's allocatable CPU, thousandths of a core: stands in for a missing limit.
    pub(crate) cpu_milli: i64,
    /// The node's allocatable memory, bytes.
    pub(crate) memory: i64,
}

/// The value of a pod field.
pub(crate) fn pod_field(pod: &api::Pod, path: &str, facts: &Facts) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => format_map(meta.labels.as_ref()),
        "metadata.annotations" => format_map(meta.annotations.as_ref()),
        "spec.nodeName" => spec.map(|s| text(&s.node_name)).unwrap_or_default(),
        "spec.serviceAccountName" => {
            spec.map(|s| text(&s.service_account_name)).unwrap_or_default()
        }
        "status.hostIP" => facts.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `metadata.labels['key']` taken apart.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="value"` lines, sorted, values quoted: the format of label and annotation files.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> =
        map.into_iter().flatten().map(|(k, v)| format!("{k}={}", go_quote(v))).collect();
    lines.join("\n")
}

fn go_quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a container's request or limit, divided and rounded up.
pub(crate) fn resource_field(
    pod: &api::Pod,
    selector: &api::ResourceFieldSelector,
    own: Option<&str>,
    facts: &Facts,
) -> Result<String, String> {
    let name = selector.container_name.as_deref().or(own).unwrap_or_default();
    let spec = pod.spec.as_ref();
    let container = spec
        .into_iter()
        .flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers))
        .find(|c| c.name == name)
        .ok_or_else(|| format!("container {name} not found"))?;
    let (kind, resource) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let value = match kind {
        "limits" => {
            resources::limit(container, resource).unwrap_or_else(|| default_limit(resource, facts))
        }
        "requests" => resources::request(container, resource).unwrap_or(meta::Quantity::ZERO),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let divisor = selector.divisor.as_ref().map(resources::quantity).filter(|q| !q.is_zero());
    let divisor = divisor.unwrap_or(meta::Quantity::new(1, meta::quantity::Format::DecimalSi));
    let (value, divisor) = (value.nanos(), divisor.nanos());
    Ok(((value + divisor - 1) / divisor).to_string())
}

fn default_limit(resource: &str, facts: &Facts) -> meta::Quantity {
    match resource {
        "cpu" => meta::Quantity::from_milli(facts.cpu_milli),
        "memory" => meta::Quantity::bytes(facts.memory),
        _ => meta::Quantity::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> api::Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"a": "1", "b": "x\"y"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}}}]}}))
        .unwrap()
    }

    #[test]
    fn fields() {
        let facts = Facts { pod_ips: vec!["10.0.0.1".into(), "fd::1".into()], ..Facts::default() };
        let field = |path| pod_field(&pod(), path, &facts);
        assert_eq!(field("metadata.labels['a']").unwrap(), "1");
        assert_eq!(field("metadata.labels").unwrap(), "a=\"1\"\nb=\"x\\\"y\"");
        assert_eq!(field("status.podIPs").unwrap(), "10.0.0.1,fd::1");
        assert!(field("spec.nothing").is_err());
    }

    #[test]
    fn resources_divide_and_round_up() {
        let facts = Facts { memory: 5 << 20, ..Facts::default() };
        let value = |resource: &str, divisor: &str| {
            let selector = json!({"resource": resource, "divisor": divisor});
            let selector: api::ResourceFieldSelector = serde_json::from_value(selector).unwrap();
            resource_field(&pod(), &selector, Some("c"), &facts).unwrap()
        };
        assert_eq!(value("limits.cpu", "0"), "2");
        assert_eq!(value("limits.cpu", "1m"), "1500");
        assert_eq!(value("limits.memory", "1Mi"), "5");
        assert_eq!(value("requests.memory", "1"), "0");
    }
}
