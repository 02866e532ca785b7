//! A pod's host name and its `/etc/hosts`. Pure.

use k8s_openapi::api::core::v1 as api;

/// Longest host name, characters.
const LONGEST: usize = 63;

/// Host name and domain of a pod: the domain is empty unless the pod names a subdomain.
pub(crate) fn names(pod: &api::Pod, cluster_domain: &str) -> (String, String) {
    let spec = pod.spec.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(name) = spec.hostname_override.filter(|n| !n.is_empty()) {
        return (name, String::new());
    }
    let name = spec
        .hostname
        .filter(|n| !n.is_empty())
        .or_else(|| pod.metadata.name.clone())
        .unwrap_or_default();
    let short: String = name.chars().take(LONGEST).collect();
    let short = short.trim_end_matches(['-', '.']).to_owned();
    let domain = match spec.subdomain.filter(|s| !s.is_empty()) {
        Some(subdomain) => format!("{subdomain}.{namespace}.svc.{cluster_domain}"),
        None => String::new(),
    };
    (short, domain)
}

/// The name of the UTS namespace: the full name where the pod asks for that.
pub(crate) fn uts_name(pod: &api::Pod, cluster_domain: &str) -> String {
    let (name, domain) = names(pod, cluster_domain);
    let fqdn = pod.spec.as_ref().and_then(|s| s.set_hostname_as_fqdn).unwrap_or(false);
    if fqdn && !domain.is_empty() { format!("{name}.{domain}") } else { name }
}

/// The text of `/etc/hosts`. On the host's network it is the host's own file with the pod's aliases.
pub(crate) fn file(
    pod: &api::Pod,
    ips: &[String],
    cluster_domain: &str,
    host_file: Option<&str>,
) -> String {
    let mut text = match host_file {
        Some(own) => format!("# Kubernetes-managed hosts file (host network).\n{own}"),
        None => String::from(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        ),
    };
    if host_file.is_none() {
        let (name, domain) = names(pod, cluster_domain);
        for ip in ips {
            if domain.is_empty() {
                text.push_str(&format!("{ip}\t{name}\n"));
            } else {
                text.push_str(&format!("{ip}\t{name}.{domain}\t{name}\n"));
            }
        }
    }
    let aliases = pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten());
    let lines: Vec<String> = aliases
        .map(|alias| {
            format!(
                "{}\t{}\n",
                alias.ip,
                alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t")
            )
        })
        .collect();
    if !lines.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        text.extend(lines);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn subdomain_and_aliases() {
        let pod: api::Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [], "subdomain": "db",
                     "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}}))
            .unwrap();
        let text = file(&pod, &["10.0.0.5".to_owned()], "cluster.local", None);
        assert!(text.contains("10.0.0.5\tp.db.n.svc.cluster.local\tp\n"), "{text}");
        assert!(text.ends_with("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    }
}
