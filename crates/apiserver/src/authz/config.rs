//! Who is asked what users may do, as configured: `AuthorizationConfiguration` of `apiserver.config.k8s.io`.
//!
//! CEL match conditions are refused: there is no evaluator for them yet.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{
    Mode,
    webhook::{AccessWebhook, Settings},
};
use crate::hook::{Hook, HookError};

/// The `AuthorizationConfiguration`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationConfiguration {
    api_version: String,
    kind: String,
    authorizers: Vec<One>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    r#type: String,
    name: String,
    webhook: Option<Webhook>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Webhook {
    timeout: String,
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: Option<String>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: Option<String>,
    cache_authorized_requests: Option<bool>,
    cache_unauthorized_requests: Option<bool>,
    subject_access_review_version: String,
    #[serde(default)]
    match_condition_subject_access_review_version: String,
    failure_policy: String,
    connection_info: ConnectionInfo,
    #[serde(default)]
    match_conditions: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConnectionInfo {
    r#type: String,
    kube_config_file: Option<PathBuf>,
}

impl AuthorizationConfiguration {
    /// Reads a configuration from YAML or JSON.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let json = codec::yaml::to_json(text.as_bytes()).map_err(|error| error.to_string())?;
        let config: Self = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
        let version = config.api_version.strip_prefix("apiserver.config.k8s.io/");
        if !matches!(version, Some("v1" | "v1beta1")) || config.kind != "AuthorizationConfiguration"
        {
            return Err("it must be of apiVersion apiserver.config.k8s.io/v1 and kind AuthorizationConfiguration".into());
        }
        if config.authorizers.is_empty() {
            return Err("authorizers: at least one authorization mode must be defined".into());
        }
        let (mut names, mut types) = (HashSet::new(), HashSet::new());
        for (at, one) in config.authorizers.iter().enumerate() {
            let fail = |why: String| Err(format!("authorizers[{at}]{why}"));
            if let Some(why) = meta::names::is_dns1123_subdomain(&one.name).into_iter().next() {
                return fail(format!(".name: {why}"));
            }
            if !names.insert(&one.name) {
                return fail(".name: it is another's already".into());
            }
            if one.r#type != "Webhook" && !types.insert(&one.r#type) {
                return fail(".type: it is there already".into());
            }
            let webhook = match (one.r#type.as_str(), &one.webhook) {
                ("Webhook", Some(webhook)) => webhook.wrong(),
                ("Webhook", None) => Some("required when type=Webhook".into()),
                ("Node" | "RBAC" | "AlwaysAllow" | "AlwaysDeny", None) => None,
                ("Node" | "RBAC" | "AlwaysAllow" | "AlwaysDeny", Some(_)) => {
                    Some("may only be specified when type=Webhook".into())
                }
                (other, _) => return fail(format!(".type: {other:?} is unknown")),
            };
            if let Some(why) = webhook {
                return fail(format!(
                    ".webhook{}{why}",
                    if why.starts_with('.') { "" } else { ": " }
                ));
            }
        }
        Ok(config)
    }

    /// Those who are asked, in order.
    ///
    /// # Errors
    /// When a webhook's kubeconfig cannot be used.
    pub async fn open(self) -> Result<Vec<Mode>, HookError> {
        let mut modes = Vec::new();
        for one in self.authorizers {
            modes.push(match (one.r#type.as_str(), one.webhook) {
                ("Node", _) => Mode::Node,
                ("RBAC", _) => Mode::Rbac,
                ("AlwaysAllow", _) => Mode::AlwaysAllow,
                (_, None) => Mode::AlwaysDeny,
                (_, Some(webhook)) => {
                    let timeout = duration(&webhook.timeout).unwrap_or(Duration::from_secs(3));
                    let path = webhook.connection_info.kube_config_file.clone().unwrap_or_default();
                    let hook = Hook::from_kubeconfig(&path, timeout).await?;
                    Mode::Webhook(one.name, Box::new(AccessWebhook::new(hook, webhook.settings())))
                }
            });
        }
        Ok(modes)
    }
}

impl Webhook {
    fn wrong(&self) -> Option<String> {
        let time =
            |text: &Option<String>| text.as_deref().is_some_and(|text| duration(text).is_none());
        let info = &self.connection_info;
        let why = match () {
            () if duration(&self.timeout).is_none_or(|t| t > Duration::from_secs(30)) => {
                ".timeout: must be greater than zero and at most 30s"
            }
            () if time(&self.authorized_ttl) => {
                ".authorizedTTL: must be a duration greater than zero"
            }
            () if time(&self.unauthorized_ttl) => {
                ".unauthorizedTTL: must be a duration greater than zero"
            }
            () if self.subject_access_review_version != "v1" => {
                ".subjectAccessReviewVersion: only v1 is supported"
            }
            () if !matches!(
                self.match_condition_subject_access_review_version.as_str(),
                "" | "v1"
            ) =>
            {
                ".matchConditionSubjectAccessReviewVersion: only v1 is supported"
            }
            () if !self.match_conditions.is_empty() => {
                ".matchConditions: CEL expressions are not supported yet"
            }
            () if !matches!(self.failure_policy.as_str(), "NoOpinion" | "Deny") => {
                ".failurePolicy: must be NoOpinion or Deny"
            }
            () if info.r#type != "KubeConfigFile" => {
                ".connectionInfo.type: only KubeConfigFile is supported"
            }
            () if info.kube_config_file.as_ref().is_none_or(|path| !path.is_absolute()) => {
                ".connectionInfo.kubeConfigFile: must be an absolute path"
            }
            () => return None,
        };
        Some(why.to_owned())
    }

    fn settings(&self) -> Settings {
        let usual = Settings::default();
        let holds = |text: &Option<String>, cached: Option<bool>, usual: Duration| match cached {
            Some(false) => Duration::ZERO,
            _ => text.as_deref().and_then(duration).unwrap_or(usual),
        };
        Settings {
            authorized: holds(
                &self.authorized_ttl,
                self.cache_authorized_requests,
                usual.authorized,
            ),
            unauthorized: holds(
                &self.unauthorized_ttl,
                self.cache_unauthorized_requests,
                usual.unauthorized,
            ),
            deny_on_failure: self.failure_policy == "Deny",
        }
    }
}

/// A time greater than zero.
fn duration(text: &str) -> Option<Duration> {
    crate::request::query::duration(text).filter(|time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEBHOOK: &str = "timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, connectionInfo: {type: KubeConfigFile, kubeConfigFile: /x}";

    fn parse(authorizers: &str) -> Result<AuthorizationConfiguration, String> {
        AuthorizationConfiguration::parse(&format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{authorizers}]"
        ))
    }

    #[test]
    fn configurations_are_read_or_refused_with_the_field() {
        let good = parse(&format!(
            "{{type: Node, name: node}}, {{type: Webhook, name: w, webhook: {{{WEBHOOK}, authorizedTTL: 1m30s, cacheUnauthorizedRequests: false}}}}, {{type: RBAC, name: rbac}}"
        ));
        let good = good.expect("good");
        let settings = good.authorizers[1].webhook.as_ref().expect("webhook").settings();
        assert_eq!(
            (settings.authorized, settings.unauthorized),
            (Duration::from_secs(90), Duration::ZERO)
        );
        let refused = |authorizers: &str, why: &str| {
            let error = parse(authorizers).expect_err(why);
            assert!(error.contains(why), "{error}");
        };
        refused("", "at least one");
        refused("{type: Node, name: a}, {type: Node, name: b}", "authorizers[1].type");
        refused("{type: Node, name: a}, {type: RBAC, name: a}", "authorizers[1].name");
        refused("{type: ABAC, name: a}", "unknown");
        refused("{type: Webhook, name: a}", "required when type=Webhook");
        let webhook = |more: &str| format!("{{type: Webhook, name: a, webhook: {{{more}}}}}");
        refused(&webhook(&WEBHOOK.replace("3s", "0s")), ".webhook.timeout");
        refused(&webhook(&WEBHOOK.replace("/x", "x")), "absolute path");
        refused(&webhook(&format!("{WEBHOOK}, matchConditions: [{{expression: 'true'}}]")), "CEL");
    }
}
