//! Environment variables that name Services. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as api;

/// The variables of the Services a pod in `namespace` sees: those of its namespace if `links`, and in any case the API
/// server's. Headless Services have none.
pub(crate) fn variables<'a>(
    services: impl IntoIterator<Item = &'a api::Service>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<&str, &api::Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let own = service.metadata.namespace.as_deref().unwrap_or_default();
        let master = own == "default" && name == "kubernetes";
        if own == namespace && links {
            chosen.insert(name, service);
        } else if master {
            chosen.entry(name).or_insert(service);
        }
    }
    let mut variables = BTreeMap::new();
    for (name, service) in chosen {
        add(&mut variables, name, service);
    }
    variables
}

fn add(variables: &mut BTreeMap<String, String>, name: &str, service: &api::Service) {
    let Some(spec) = &service.spec else { return };
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let (Some(first), false) = (ports.first(), address.is_empty() || address == "None") else {
        return;
    };
    let prefix = variable(name);
    variables.insert(format!("{prefix}_SERVICE_HOST"), address.to_owned());
    variables.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    let bracketed = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    for (index, port) in ports.iter().enumerate() {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            variables.insert(
                format!("{prefix}_SERVICE_PORT_{}", variable(port_name)),
                port.port.to_string(),
            );
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{bracketed}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            variables.insert(format!("{prefix}_PORT"), url.clone());
        }
        let one = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.insert(format!("{one}_PROTO"), protocol.to_lowercase());
        variables.insert(format!("{one}_PORT"), port.port.to_string());
        variables.insert(format!("{one}_ADDR"), address.to_owned());
        variables.insert(one, url);
    }
}

fn variable(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_families_of_variables() {
        let service = |ns: &str, name: &str, ip: &str| -> api::Service {
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": ns},
                "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}}))
            .unwrap()
        };
        let all = [
            service("default", "kubernetes", "10.96.0.1"),
            service("a", "my-web", "10.96.0.7"),
            service("a", "h", "None"),
        ];
        let with = variables(&all, "a", true);
        assert_eq!(with["MY_WEB_SERVICE_HOST"], "10.96.0.7");
        assert_eq!(with["MY_WEB_SERVICE_PORT_HTTP"], "80");
        assert_eq!(with["MY_WEB_PORT_80_TCP"], "tcp://10.96.0.7:80");
        assert_eq!(with["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
        assert!(!with.contains_key("H_SERVICE_HOST"));
        let without = variables(&all, "a", false);
        assert!(without.keys().all(|k| k.starts_with("KUBERNETES_")));
    }
}
