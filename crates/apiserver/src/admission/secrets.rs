//! Which secrets a service account lets its pods use, where the account says that there are limits.

use serde_json::Value;

use super::{each, text};

/// Says that pods may use only the secrets that the account lists.
const LIMITED: &str = "kubernetes.io/enforce-mountable-secrets";

/// What a pod uses that its account does not list; nothing where the account does not limit that.
pub(super) fn unlisted(pod: &Value, account: &Value) -> Option<String> {
    let limit = Limit::of(account)?;
    let spec = &pod["spec"];
    let of_volume =
        each(spec, "volumes").filter(|volume| !volume["secret"].is_null()).find_map(|volume| {
            let name = text(&volume["secret"], "secretName");
            limit.unless_listed(name, || format!("volume with secret.secretName=\"{name}\""))
        });
    of_volume
        .or_else(|| limit.containers(spec, "initContainers", "init container"))
        .or_else(|| limit.containers(spec, "containers", "container"))
        .or_else(|| limit.pull_secrets(spec))
}

/// As [`unlisted`], of the ephemeral containers alone.
pub(super) fn unlisted_ephemeral(pod: &Value, account: &Value) -> Option<String> {
    Limit::of(account)?.containers(&pod["spec"], "ephemeralContainers", "ephemeral container")
}

struct Limit<'a> {
    account: &'a Value,
}

impl<'a> Limit<'a> {
    fn of(account: &'a Value) -> Option<Self> {
        let said = text(&account["metadata"]["annotations"], LIMITED);
        let yes = ["1", "t", "T", "TRUE", "true", "True"].contains(&said);
        yes.then_some(Self { account })
    }

    fn name(&self) -> &str {
        text(&self.account["metadata"], "name")
    }

    fn unless_listed(&self, secret: &str, user: impl Fn() -> String) -> Option<String> {
        let listed = each(self.account, "secrets").any(|one| text(one, "name") == secret);
        (!listed).then(|| {
            let (user, account) = (user(), self.name());
            format!("{user} is not allowed because service account {account} does not reference that secret")
        })
    }

    fn containers(&self, spec: &Value, list: &str, what: &str) -> Option<String> {
        each(spec, list).find_map(|container| {
            let own = text(container, "name");
            let of_variable = each(container, "env").find_map(|variable| {
                let secret = &variable["valueFrom"]["secretKeyRef"];
                let (name, variable) = (text(secret, "name"), text(variable, "name"));
                let user = || {
                    format!("{what} {own} with envVar {variable} referencing secret.secretName=\"{name}\"")
                };
                if secret.is_null() { None } else { self.unless_listed(name, user) }
            });
            of_variable.or_else(|| {
                each(container, "envFrom").find_map(|source| {
                    let name = text(&source["secretRef"], "name");
                    let user = || format!("{what} {own} with envFrom referencing secret.secretName=\"{name}\"");
                    if source["secretRef"].is_null() { None } else { self.unless_listed(name, user) }
                })
            })
        })
    }

    fn pull_secrets(&self, spec: &Value) -> Option<String> {
        each(spec, "imagePullSecrets").enumerate().find_map(|(index, secret)| {
            let name = text(secret, "name");
            let mut listed = each(self.account, "imagePullSecrets");
            (!listed.any(|one| text(one, "name") == name)).then(|| {
                let account = self.name();
                format!(
                    "imagePullSecrets[{index}].name=\"{name}\" is not allowed because service account {account} does not reference that imagePullSecret"
                )
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_listed_secrets_are_used_where_the_account_says_so() {
        let account = json!({"metadata": {"name": "robot", "annotations": {LIMITED: "true"}},
            "secrets": [{"name": "mine"}], "imagePullSecrets": [{"name": "pull"}]});
        let told = |spec: Value| unlisted(&json!({"spec": spec}), &account).unwrap_or_default();
        let container = |secret: &str| {
            json!([{"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": secret}}}],
                "envFrom": [{"secretRef": {"name": "mine"}}]}])
        };
        let tail = "is not allowed because service account robot does not reference that";
        assert_eq!(
            told(json!({"containers": container("mine"), "imagePullSecrets": [{"name": "pull"}]})),
            ""
        );
        assert_eq!(
            told(json!({"containers": container("other")})),
            format!(
                "container c with envVar A referencing secret.secretName=\"other\" {tail} secret"
            )
        );
        assert_eq!(
            told(json!({"volumes": [{"name": "v", "secret": {"secretName": "other"}}]})),
            format!("volume with secret.secretName=\"other\" {tail} secret")
        );
        assert_eq!(
            told(json!({"imagePullSecrets": [{"name": "other"}]})),
            format!("imagePullSecrets[0].name=\"other\" {tail} imagePullSecret")
        );
        let free = json!({"metadata": {"name": "robot"}});
        assert_eq!(unlisted(&json!({"spec": {"containers": container("other")}}), &free), None);
    }
}
