//! One RBAC policy rule, and whether it covers a request.
//!
//! Knows nothing of who holds the rule. Matching follows the rules documented for
//! `rbac.authorization.k8s.io/v1` PolicyRule.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Attributes;

/// A PolicyRule, as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// The verbs granted; `*` is every verb.
    #[serde(deserialize_with = "nullable")]
    pub verbs: Vec<String>,
    /// The API groups; `*` is every group, the empty string the core group.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// `resource`, `resource/subresource`, `*/subresource` or `*`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// The names the rule is limited to; empty means every name.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths of non-resource requests, with an optional trailing `*`.
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub non_resource_urls: Vec<String>,
}

/// Stored lists may be null.
fn nullable<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(input)?.unwrap_or_default())
}

impl Rule {
    /// All that can be granted.
    pub fn everything() -> Vec<Self> {
        let all = || vec!["*".to_owned()];
        vec![
            Self { verbs: all(), api_groups: all(), resources: all(), ..Self::default() },
            Self { verbs: all(), non_resource_urls: all(), ..Self::default() },
        ]
    }

    /// Whether the rule grants this request.
    pub fn allows(&self, request: &Attributes<'_>) -> bool {
        if !holds(&self.verbs, request.verb) {
            return false;
        }
        if !request.resource_request {
            return self.non_resource_urls.iter().any(|url| url_matches(url, request.path));
        }
        holds(&self.api_groups, request.group)
            && self
                .resources
                .iter()
                .any(|resource| resource_matches(resource, request.resource, request.subresource))
            && (self.resource_names.is_empty()
                || self.resource_names.iter().any(|name| name == request.name))
    }

    /// Splits the rule into rules of one verb, group, resource and name each, the unit in which
    /// coverage is decided.
    pub fn atoms(&self) -> Vec<Rule> {
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            for group in &self.api_groups {
                for resource in &self.resources {
                    let atom = Rule {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        ..Rule::default()
                    };
                    if self.resource_names.is_empty() {
                        atoms.push(atom.clone());
                    }
                    for name in &self.resource_names {
                        atoms.push(Rule { resource_names: vec![name.clone()], ..atom.clone() });
                    }
                }
            }
            for url in &self.non_resource_urls {
                atoms.push(Rule {
                    verbs: vec![verb.clone()],
                    non_resource_urls: vec![url.clone()],
                    ..Rule::default()
                });
            }
        }
        atoms
    }

    /// Whether everything the atom `other` grants, this rule grants as well.
    pub fn covers(&self, other: &Rule) -> bool {
        let verbs = all_held(&self.verbs, &other.verbs);
        if !other.non_resource_urls.is_empty() {
            return verbs
                && other.non_resource_urls.iter().all(|wanted| {
                    self.non_resource_urls.iter().any(|url| url_matches(url, wanted))
                });
        }
        let names = self.resource_names.is_empty()
            || (!other.resource_names.is_empty()
                && other.resource_names.iter().all(|name| self.resource_names.contains(name)));
        let resources = other.resources.iter().all(|wanted| {
            self.resources.iter().any(|held| {
                held == "*"
                    || held == wanted
                    || matches!((held.strip_prefix("*/"), wanted.split_once('/')), (Some(held), Some((_, sub))) if held == sub)
            })
        });
        verbs && all_held(&self.api_groups, &other.api_groups) && resources && names
    }
}

/// The rules among `wanted` that `held` does not cover, merged per resource; empty if all is covered.
pub fn uncovered(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let atoms = wanted.iter().flat_map(Rule::atoms);
    let missing: Vec<Rule> =
        atoms.filter(|atom| !held.iter().any(|rule| rule.covers(atom))).collect();
    compact(missing)
}

/// Merges rules that differ only in their verbs.
pub fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut merged: Vec<Rule> = Vec::new();
    for rule in rules {
        let same = merged.iter_mut().find(|known| {
            known.api_groups == rule.api_groups
                && known.resources == rule.resources
                && known.resource_names == rule.resource_names
                && known.non_resource_urls == rule.non_resource_urls
        });
        match same {
            Some(known) => {
                known.verbs.extend(rule.verbs);
                known.verbs.dedup();
            }
            None => merged.push(rule),
        }
    }
    merged
}

fn holds(list: &[String], value: &str) -> bool {
    list.iter().any(|held| held == "*" || held == value)
}

fn all_held(held: &[String], wanted: &[String]) -> bool {
    held.iter().any(|value| value == "*") || wanted.iter().all(|value| held.contains(value))
}

fn url_matches(url: &str, path: &str) -> bool {
    url == path || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

fn resource_matches(held: &str, resource: &str, subresource: &str) -> bool {
    if held == "*" {
        return true;
    }
    if subresource.is_empty() {
        return held == resource;
    }
    match held.split_once('/') {
        Some((parent, sub)) => sub == subresource && (parent == "*" || parent == resource),
        None => false,
    }
}

/// The compact form that messages about privilege escalation print.
impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (name, list) in [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.resource_names),
            ("NonResourceURLs", &self.non_resource_urls),
            ("Verbs", &self.verbs),
        ] {
            if !list.is_empty() {
                let quoted: Vec<String> = list.iter().map(|value| format!("{value:?}")).collect();
                parts.push(format!("{name}:[{}]", quoted.join(" ")));
            }
        }
        write!(out, "{{{}}}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
        let list = |text: &str| {
            text.split(',')
                .filter(|word| !word.is_empty())
                .map(|word| word.replace("core", ""))
                .collect()
        };
        Rule {
            verbs: list(verbs),
            api_groups: list(groups),
            resources: list(resources),
            resource_names: list(names),
            non_resource_urls: Vec::new(),
        }
    }

    fn request<'a>(
        verb: &'a str,
        resource: &'a str,
        subresource: &'a str,
        name: &'a str,
    ) -> Attributes<'a> {
        Attributes {
            verb,
            resource,
            subresource,
            name,
            resource_request: true,
            ..Attributes::default()
        }
    }

    #[test]
    fn resources_and_subresources_are_matched_apart() {
        let pods = rule("get", "core", "pods", "");
        assert!(pods.allows(&request("get", "pods", "", "a")));
        assert!(!pods.allows(&request("get", "pods", "log", "a")));
        assert!(!pods.allows(&request("list", "pods", "", "")));
        assert!(rule("get", "core", "pods/log", "").allows(&request("get", "pods", "log", "a")));
        assert!(rule("*", "*", "*/scale", "").allows(&request("get", "pods", "scale", "a")));
        assert!(rule("*", "*", "*", "").allows(&request("get", "pods", "scale", "a")));
        let named = rule("get", "core", "pods", "a");
        assert!(named.allows(&request("get", "pods", "", "a")));
        assert!(!named.allows(&request("get", "pods", "", "b")));
    }

    #[test]
    fn urls_match_by_prefix_only_with_a_star() {
        let rule = Rule {
            verbs: vec!["get".into()],
            non_resource_urls: vec!["/healthz/*".into(), "/version".into()],
            ..Rule::default()
        };
        let ask = |path| rule.allows(&Attributes { verb: "get", path, ..Attributes::default() });
        assert!(ask("/healthz/etcd") && ask("/version"));
        assert!(!ask("/healthz") && !ask("/version/"));
    }

    #[test]
    fn coverage_names_exactly_what_is_missing() {
        let held = [rule("get,list", "core", "pods,*/status", ""), rule("*", "apps", "*", "")];
        assert!(uncovered(&held, &[rule("get", "core", "pods", "x")]).is_empty());
        assert!(uncovered(&held, &[rule("get", "core", "nodes/status", "")]).is_empty());
        assert!(uncovered(&held, &[rule("delete", "apps", "deployments", "")]).is_empty());
        let missing = uncovered(&held, &[rule("get,create,delete", "core", "pods", "")]);
        assert_eq!(missing.len(), 1);
        assert_eq!(
            missing[0].to_string(),
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["create" "delete"]}"#
        );
        assert_eq!(
            uncovered(&[rule("get", "core", "pods", "x")], &[rule("get", "core", "pods", "")])
                .len(),
            1
        );
    }
}
