//! How users are known, as configured: `AuthenticationConfiguration` of `apiserver.config.k8s.io`, and the file of
//! static tokens. Pure.
//!
//! CEL expressions are refused: there is no evaluator for them yet.

use std::{collections::HashSet, sync::Arc};

use registry::UserInfo;
use serde::Deserialize;

use super::StaticToken;
use crate::identity::Identity;

/// The `AuthenticationConfiguration`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthenticationConfiguration {
    api_version: String,
    kind: String,
    /// Issuers whose tokens are accepted.
    #[serde(default)]
    pub(super) jwt: Vec<Jwt>,
    /// Requests without credentials; they may see everything if nothing is said.
    #[serde(default)]
    pub anonymous: Option<Anonymous>,
}

/// Whether requests without credentials go on, and on which paths.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anonymous {
    /// Whether at all.
    pub enabled: bool,
    /// The paths; none is all.
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    path: String,
}

impl Anonymous {
    /// On all paths, or not at all.
    pub fn everywhere(enabled: bool) -> Self {
        Self { enabled, conditions: Vec::new() }
    }

    pub(super) fn allows(&self, path: &str) -> bool {
        let listed = || self.conditions.iter().any(|condition| condition.path == path);
        self.enabled && (self.conditions.is_empty() || listed())
    }
}

/// An issuer of tokens, and how its claims are read.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Jwt {
    pub(super) issuer: Issuer,
    #[serde(default)]
    pub(super) claim_validation_rules: Vec<ClaimRule>,
    pub(super) claim_mappings: Mappings,
    #[serde(default)]
    user_validation_rules: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Issuer {
    pub(super) url: String,
    #[serde(default, rename = "discoveryURL")]
    pub(super) discovery_url: String,
    #[serde(default)]
    pub(super) certificate_authority: String,
    pub(super) audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
    #[serde(default)]
    egress_selector_type: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ClaimRule {
    pub(super) claim: String,
    pub(super) required_value: String,
    expression: String,
    message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Mappings {
    pub(super) username: Mapping,
    pub(super) groups: Mapping,
    pub(super) uid: Mapping,
    extra: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Mapping {
    pub(super) claim: String,
    pub(super) prefix: Option<String>,
    expression: String,
}

impl AuthenticationConfiguration {
    /// Reads a configuration from YAML or JSON. `own` is the issuer of this cluster's own tokens.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str, own: &str) -> Result<Self, String> {
        let json = codec::yaml::to_json(text.as_bytes()).map_err(|error| error.to_string())?;
        let config: Self = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
        let version = config.api_version.strip_prefix("apiserver.config.k8s.io/");
        if !matches!(version, Some("v1" | "v1beta1"))
            || config.kind != "AuthenticationConfiguration"
        {
            return Err("it must be of apiVersion apiserver.config.k8s.io/v1 and kind AuthenticationConfiguration".into());
        }
        let anonymous = config.anonymous.iter();
        if anonymous.clone().any(|anonymous| !anonymous.enabled && !anonymous.conditions.is_empty())
        {
            return Err(
                "anonymous.conditions: enabled should be set to true when conditions are defined"
                    .into(),
            );
        }
        let mut seen = HashSet::from([own]);
        for (at, jwt) in config.jwt.iter().enumerate() {
            if let Some((field, why)) = jwt.wrong() {
                return Err(format!("jwt[{at}].{field}: {why}"));
            }
            for url in [&jwt.issuer.url, &jwt.issuer.discovery_url] {
                if !url.is_empty() && !seen.insert(url) {
                    return Err(format!("jwt[{at}].issuer: {url} is another's already"));
                }
            }
        }
        Ok(config)
    }
}

/// What expressions are refused with.
const EXPRESSION: &str = "CEL expressions are not supported yet";

type Wrong = (&'static str, &'static str);

impl Jwt {
    fn wrong(&self) -> Option<Wrong> {
        let mappings = &self.claim_mappings;
        self.issuer.wrong().or_else(|| self.claim_validation_rules.iter().find_map(ClaimRule::wrong)).or_else(
            || {
                Some(match () {
                    () if !self.user_validation_rules.is_empty() => ("userValidationRules", EXPRESSION),
                    () if !mappings.extra.is_empty() => ("claimMappings.extra", EXPRESSION),
                    () if !mappings.username.expression.is_empty() => {
                        ("claimMappings.username.expression", EXPRESSION)
                    }
                    () if !mappings.groups.expression.is_empty() => {
                        ("claimMappings.groups.expression", EXPRESSION)
                    }
                    () if !mappings.uid.expression.is_empty() => ("claimMappings.uid.expression", EXPRESSION),
                    () if mappings.username.claim.is_empty() => {
                        ("claimMappings.username", "claim or expression is required")
                    }
                    () if mappings.username.prefix.is_none() => (
                        "claimMappings.username.prefix",
                        "prefix is required when claim is set. It can be set to an empty string to disable prefixing",
                    ),
                    () if !mappings.groups.claim.is_empty() && mappings.groups.prefix.is_none() => (
                        "claimMappings.groups.prefix",
                        "prefix is required when claim is set. It can be set to an empty string to disable prefixing",
                    ),
                    () if mappings.groups.claim.is_empty() && mappings.groups.prefix.is_some() => {
                        ("claimMappings.groups.claim", "non-empty claim name is required when prefix is set")
                    }
                    () if mappings.uid.prefix.is_some() => ("claimMappings.uid.prefix", "there is no such field"),
                    () => return None,
                })
            },
        )
    }
}

impl ClaimRule {
    fn wrong(&self) -> Option<Wrong> {
        const FIELD: &str = "claimValidationRules";
        match () {
            () if !self.expression.is_empty() => Some((FIELD, EXPRESSION)),
            () if self.claim.is_empty() => Some((FIELD, "claim or expression is required")),
            () if !self.message.is_empty() => {
                Some((FIELD, "message may not be specified when claim is set"))
            }
            () => None,
        }
    }
}

impl Issuer {
    fn wrong(&self) -> Option<Wrong> {
        let distinct: HashSet<&String> = self.audiences.iter().collect();
        Some(match () {
            () if !plain_https(&self.url) => ("issuer.url", "it must be a plain https URL"),
            () if !self.discovery_url.is_empty() && !plain_https(&self.discovery_url) => {
                ("issuer.discoveryURL", "it must be a plain https URL")
            }
            () if self.discovery_url.trim_end_matches('/') == self.url.trim_end_matches('/') => {
                ("issuer.discoveryURL", "discoveryURL must be different from URL")
            }
            () if self.audiences.is_empty() => ("issuer.audiences", "at least one is required"),
            () if self.audiences.iter().any(String::is_empty)
                || distinct.len() < self.audiences.len() =>
            {
                ("issuer.audiences", "they must be different and not empty")
            }
            () if self.audiences.len() > 1 && self.audience_match_policy != "MatchAny" => (
                "issuer.audienceMatchPolicy",
                "audienceMatchPolicy must be MatchAny for multiple audiences",
            ),
            () if !matches!(self.audience_match_policy.as_str(), "" | "MatchAny") => {
                ("issuer.audienceMatchPolicy", "audienceMatchPolicy must be empty or MatchAny")
            }
            () if !self.egress_selector_type.is_empty() => {
                ("issuer.egressSelectorType", "there are no egress selectors")
            }
            () => return None,
        })
    }
}

fn plain_https(url: &str) -> bool {
    let rest = url.strip_prefix("https://").filter(|_| !url.contains(['?', '#', '@', ' ']));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
        && url.parse::<http::Uri>().is_ok()
}

/// Reads a file of static tokens: `token,user,uid` and optionally `"group,group"` on each line.
///
/// # Errors
/// The line that cannot be read.
pub fn static_tokens(text: &str) -> Result<Vec<StaticToken>, String> {
    let mut tokens = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let fields =
            fields(line).ok_or_else(|| format!("line {}: a quote has no end", number + 1))?;
        let [token, name, uid, rest @ ..] = fields.as_slice() else {
            return Err(format!("line {}: it needs at least token, user name and uid", number + 1));
        };
        if token.is_empty() {
            return Err(format!("line {}: the token is empty", number + 1));
        }
        let groups = rest.first().map_or("", String::as_str).split(',');
        let groups = groups.map(str::trim).filter(|group| !group.is_empty()).map(str::to_owned);
        let mut user = UserInfo {
            name: name.clone(),
            uid: uid.clone(),
            groups: groups.collect(),
            ..UserInfo::default()
        };
        user.add_authenticated();
        tokens.push(StaticToken { token: token.clone(), user: Arc::new(user) });
    }
    Ok(tokens)
}

/// The fields of a line of comma-separated values; none if a quote has no end.
fn fields(line: &str) -> Option<Vec<String>> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.next_if_eq(&'"').is_some() => field.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field).trim().to_owned()),
            other => field.push(other),
        }
    }
    fields.push(field.trim().to_owned());
    (!quoted).then_some(fields)
}

#[cfg(test)]
mod tests;
