//! What each signer demands of a request. Pure; the texts are upstream's, which users search for.

use pki::SigningRequest;

pub(super) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub(super) const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// What a kubelet's user name starts with.
pub(super) const NODE_PREFIX: &str = "system:node:";
/// The group of kubelets.
pub(super) const NODES: &str = "system:nodes";

/// Why a signer does not sign this.
pub(super) fn check(
    signer: &str,
    request: &SigningRequest,
    usages: &[String],
) -> Result<(), String> {
    match signer {
        CLIENT => {
            let extra = usages.iter().any(|usage| {
                !["client auth", "digital signature", "key encipherment"].contains(&usage.as_str())
            });
            if extra || !usages.iter().any(|usage| usage == "client auth") {
                return Err(format!("usages did not match [client auth]: {usages:?}"));
            }
            Ok(())
        }
        KUBELET_CLIENT => kubelet_client(request, usages),
        KUBELET_SERVING => kubelet_serving(request, usages),
        _ => Ok(()),
    }
}

/// A request for a kubelet's identity towards the API server.
pub(super) fn kubelet_client(request: &SigningRequest, usages: &[String]) -> Result<(), String> {
    kubelet(request)?;
    if !request.dns_names.is_empty() {
        return Err("DNS SANs are not allowed".to_owned());
    }
    if !request.addresses.is_empty() {
        return Err("IP SANs are not allowed".to_owned());
    }
    exactly(usages, "client auth")
}

/// A request for what a kubelet presents.
pub(super) fn kubelet_serving(request: &SigningRequest, usages: &[String]) -> Result<(), String> {
    kubelet(request)?;
    if request.dns_names.is_empty() && request.addresses.is_empty() {
        return Err("DNS or IP SAN is required".to_owned());
    }
    exactly(usages, "server auth")
}

fn kubelet(request: &SigningRequest) -> Result<(), String> {
    if request.subject.organizations != [NODES] {
        return Err(format!("subject organization is not {NODES}"));
    }
    if !request.emails.is_empty() {
        return Err("email SANs are not allowed".to_owned());
    }
    if !request.uris.is_empty() {
        return Err("URI SANs are not allowed".to_owned());
    }
    if !request.subject.common_name.starts_with(NODE_PREFIX) {
        return Err(format!("subject common name does not begin with {NODE_PREFIX:?}"));
    }
    Ok(())
}

/// Signing, with or without encipherment (which only RSA keys use), and one more.
fn exactly(usages: &[String], purpose: &str) -> Result<(), String> {
    let mut usages: Vec<&str> = usages.iter().map(String::as_str).collect();
    usages.sort_unstable();
    usages.dedup();
    usages.retain(|usage| *usage != "key encipherment");
    let mut wanted = ["digital signature", purpose];
    wanted.sort_unstable();
    if usages == wanted {
        return Ok(());
    }
    Err(format!(
        "usages did not match [digital signature {purpose}] or [digital signature key encipherment {purpose}]"
    ))
}

#[cfg(test)]
mod tests {
    use pki::{NewKey, Profile};

    use super::*;

    fn ask(profile: &Profile) -> SigningRequest {
        let text = NewKey::generate().unwrap().request(profile).unwrap();
        SigningRequest::from_pem(text.as_bytes()).unwrap()
    }

    fn verdict(signer: &str, profile: &Profile, usages: &[&str]) -> String {
        let usages: Vec<String> = usages.iter().map(ToString::to_string).collect();
        check(signer, &ask(profile), &usages).err().unwrap_or_default()
    }

    #[test]
    fn kubelets_get_what_is_theirs() {
        let node = Profile::client("system:node:b", Some("system:nodes"));
        let client = ["client auth", "digital signature", "key encipherment"];
        assert_eq!(verdict(KUBELET_CLIENT, &node, &client), "");
        assert_eq!(verdict(KUBELET_CLIENT, &node, &client[..2]), "");
        assert!(verdict(KUBELET_CLIENT, &node, &["client auth"]).starts_with("usages did not"));
        let more = ["client auth", "digital signature", "server auth"];
        assert!(verdict(KUBELET_CLIENT, &node, &more).starts_with("usages did not"));
        let other = Profile { common_name: "b".into(), ..node.clone() };
        assert!(verdict(KUBELET_CLIENT, &other, &client).contains("common name"));
        let masters = Profile { organization: Some("system:masters".into()), ..node.clone() };
        assert!(verdict(KUBELET_CLIENT, &masters, &client).contains("organization"));
        let named = Profile { dns_names: vec!["b".into()], ..node.clone() };
        assert!(verdict(KUBELET_CLIENT, &named, &client).contains("DNS SANs"));
        let serving = ["server auth", "digital signature"];
        assert_eq!(verdict(KUBELET_SERVING, &named, &serving), "");
        assert!(verdict(KUBELET_SERVING, &node, &serving).contains("SAN is required"));
    }

    #[test]
    fn clients_may_only_be_clients() {
        let jane = Profile::client("jane", None);
        assert_eq!(verdict(CLIENT, &jane, &["client auth"]), "");
        assert!(!verdict(CLIENT, &jane, &["digital signature"]).is_empty());
        assert!(!verdict(CLIENT, &jane, &["client auth", "server auth"]).is_empty());
    }
}
