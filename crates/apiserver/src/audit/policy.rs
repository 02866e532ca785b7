//! What is noted of which request: `audit.k8s.io/v1` Policy, read from its file and matched in order. Pure.

use registry::UserInfo;
use serde::{Deserialize, Deserializer};

use crate::{authz::Attributes, identity::Identity};

/// How much is noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who asked for what, and the answer's code.
    Metadata,
    /// Also what was sent.
    Request,
    /// Also what was answered.
    RequestResponse,
}

impl Level {
    /// Its name in events.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When something is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Stage {
    /// It is known who asks.
    RequestReceived,
    /// The head of an answer without a natural end is sent.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The server met a condition it did not expect.
    Panic,
}

impl Stage {
    /// Its name in events.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// A policy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    #[expect(dead_code, reason = "accepted and without meaning")]
    metadata: Option<serde_json::Value>,
    rules: Vec<Rule>,
    #[serde(default, deserialize_with = "nullable")]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default, deserialize_with = "nullable")]
    users: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    user_groups: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    verbs: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    resources: Vec<Resources>,
    #[serde(default, deserialize_with = "nullable")]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs", deserialize_with = "nullable")]
    paths: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default, deserialize_with = "nullable")]
    resources: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    resource_names: Vec<String>,
}

fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(input: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// What a policy says about one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    pub(super) level: Level,
    pub(super) omit_stages: Vec<Stage>,
    pub(super) omit_managed_fields: bool,
}

impl Policy {
    /// Everything at one level, for servers that are given a log and no policy.
    pub fn everything(level: Level) -> Self {
        let rule = Rule { level, ..Rule::default() };
        Self { rules: vec![rule], omit_stages: vec![Stage::RequestReceived], ..Self::default() }
    }

    /// Reads a policy from YAML or JSON.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let json = codec::yaml::to_json(text.as_bytes()).map_err(|error| error.to_string())?;
        let policy: Self = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
        if (policy.api_version.as_str(), policy.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err("it must be of apiVersion audit.k8s.io/v1 and kind Policy".into());
        }
        if policy.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".into());
        }
        let wrong =
            policy.rules.iter().enumerate().find_map(|(at, rule)| Some((at, rule.wrong()?)));
        match wrong {
            Some((at, why)) => Err(format!("rules[{at}].{why}")),
            None => Ok(policy),
        }
    }

    /// What is noted of a request.
    pub(super) fn judge(&self, user: &UserInfo, request: &Attributes<'_>) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(user, request)) else {
            return Verdict::default();
        };
        let omit_stages = rule.omit_stages.iter().chain(&self.omit_stages).copied().collect();
        let omit_managed_fields = rule.omit_managed_fields.unwrap_or(self.omit_managed_fields);
        Verdict { level: rule.level, omit_stages, omit_managed_fields }
    }
}

impl Rule {
    fn wrong(&self) -> Option<String> {
        let resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if resources && !self.paths.is_empty() {
            return Some("nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs".into());
        }
        for (at, path) in self.paths.iter().enumerate().filter(|(_, path)| *path != "*") {
            let inner = path.strip_suffix('*').unwrap_or(path);
            if !path.starts_with('/') {
                return Some(format!(
                    "nonResourceURLs[{at}]: non-resource URL rules must begin with a '/' character"
                ));
            }
            if inner.contains('*') {
                return Some(format!(
                    "nonResourceURLs[{at}]: non-resource URL wildcards '*' must be the final character of the rule"
                ));
            }
        }
        for group in &self.resources {
            let problems = meta::names::is_dns1123_subdomain(&group.group);
            if !matches!(group.group.as_str(), "" | "*") && !problems.is_empty() {
                return Some(format!("resources.group: {:?}: {}", group.group, problems.join(",")));
            }
            if group.resources.is_empty() && !group.resource_names.is_empty() {
                return Some(
                    "resources.resourceNames: using resourceNames requires at least one resource"
                        .into(),
                );
            }
        }
        None
    }

    fn matches(&self, user: &UserInfo, request: &Attributes<'_>) -> bool {
        let listed =
            |list: &[String], value: &str| list.is_empty() || list.iter().any(|one| one == value);
        let grouped = self.user_groups.is_empty()
            || self.user_groups.iter().any(|group| user.in_group(group));
        if !grouped || !listed(&self.users, &user.name) || !listed(&self.verbs, request.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return request.resource_request
                && listed(&self.namespaces, request.namespace)
                && (self.resources.is_empty()
                    || self.resources.iter().any(|resources| resources.match_any(request)));
        }
        if self.paths.is_empty() {
            return true;
        }
        let matches = |path: &String| {
            path == "*"
                || path == request.path
                || path.strip_suffix('*').is_some_and(|prefix| request.path.starts_with(prefix))
        };
        !request.resource_request && self.paths.iter().any(matches)
    }
}

impl Resources {
    fn match_any(&self, request: &Attributes<'_>) -> bool {
        if self.group != "*" && self.group != request.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let named =
            self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == request.name);
        let matches = |held: &String| match held.split_once('/') {
            _ if held == "*" => true,
            None => request.subresource.is_empty() && held == request.resource,
            Some((resource, "*")) => resource == request.resource,
            Some((resource, sub)) => {
                sub == request.subresource && (resource == "*" || resource == request.resource)
            }
        };
        named && self.resources.iter().any(matches)
    }
}

#[cfg(test)]
mod tests;
