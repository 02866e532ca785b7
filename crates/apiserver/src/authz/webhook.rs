//! Somebody else who is asked what users may do: a webhook that answers SubjectAccessReviews.

use std::time::Duration;

use meta::labels::{Operator, Requirement};
use registry::UserInfo;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Attributes, Opinion};
use crate::{
    hook::Hook,
    remember::{Digest, Remember},
};

/// The most answers remembered.
const MOST_REMEMBERED: usize = 8192;
/// Answers to questions longer than this are not remembered (upstream's limit).
const LONGEST_QUESTION: usize = 10_000;

/// Who is asked, and what holds if there is no answer.
pub struct AccessWebhook {
    hook: Hook,
    settings: Settings,
    remembered: Remember<Opinion>,
}

/// How answers count.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a permission is remembered.
    pub authorized: Duration,
    /// How long it is remembered that there is none.
    pub unauthorized: Duration,
    /// Whether a failure refuses what was asked rather than leaving it to others.
    pub deny_on_failure: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let (authorized, unauthorized) = (Duration::from_secs(300), Duration::from_secs(30));
        Self { authorized, unauthorized, deny_on_failure: false }
    }
}

impl AccessWebhook {
    /// Asks `hook`.
    pub fn new(hook: Hook, settings: Settings) -> Self {
        Self { hook, settings, remembered: Remember::new(MOST_REMEMBERED) }
    }

    /// What the webhook says.
    pub(super) async fn ask(&self, user: &UserInfo, request: &Attributes<'_>) -> Opinion {
        let question = review(user, request).to_string();
        let digest: Digest = Sha256::digest(&question).into();
        if let Some(known) = self.remembered.get(&digest) {
            return known;
        }
        let short = question.len() <= LONGEST_QUESTION;
        let answer = self.hook.post(question.into_bytes()).await.map_err(|error| error.to_string());
        let read = answer.and_then(|answer| {
            serde_json::from_slice::<Value>(&answer).map_err(|error| error.to_string())
        });
        match read {
            Ok(answer) => {
                let opinion = opinion(&answer["status"]);
                let allowed = matches!(opinion, Opinion::Allow(_));
                let Settings { authorized, unauthorized, .. } = self.settings;
                if short {
                    let holds = if allowed { authorized } else { unauthorized };
                    self.remembered.put(digest, holds, opinion.clone());
                }
                opinion
            }
            Err(error) => {
                tracing::error!(error, "the webhook of authorization gives no answer");
                if self.settings.deny_on_failure {
                    Opinion::Deny(String::new())
                } else {
                    Opinion::None(String::new())
                }
            }
        }
    }
}

fn opinion(status: &Value) -> Opinion {
    let reason = status["reason"].as_str().unwrap_or_default().to_owned();
    match (status["allowed"] == true, status["denied"] == true) {
        // Both at once is a contradiction: nothing is allowed by it.
        (true, false) => Opinion::Allow(reason),
        (_, true) => Opinion::Deny(reason),
        (false, false) => Opinion::None(reason),
    }
}

fn review(user: &UserInfo, request: &Attributes<'_>) -> Value {
    let mut spec = json!({"user": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        spec["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        spec["extra"] = json!(user.extra);
    }
    if request.resource_request {
        let fields = [
            ("namespace", request.namespace),
            ("verb", request.verb),
            ("group", request.group),
            ("version", request.version),
            ("resource", request.resource),
            ("subresource", request.subresource),
            ("name", request.name),
        ];
        let mut asked: serde_json::Map<String, Value> = fields
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key.to_owned(), value.into()))
            .collect();
        let terms: Vec<Value> = request
            .fields
            .iter()
            .map(|term| {
                let operator = if term.negated { "NotIn" } else { "In" };
                json!({"key": term.field, "operator": operator, "values": [term.value]})
            })
            .collect();
        if !terms.is_empty() {
            asked.insert("fieldSelector".into(), json!({"requirements": terms}));
        }
        let labels: Vec<Value> = request.labels.iter().filter_map(requirement).collect();
        if !labels.is_empty() {
            asked.insert("labelSelector".into(), json!({"requirements": labels}));
        }
        spec["resourceAttributes"] = asked.into();
    } else {
        spec["nonResourceAttributes"] = json!({"path": request.path, "verb": request.verb});
    }
    json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": spec
    })
}

/// A requirement on labels; none if reviews have no word for it.
fn requirement(requirement: &Requirement) -> Option<Value> {
    let Requirement { key, operator, values, .. } = requirement;
    let operator = match operator {
        Operator::In | Operator::Equals | Operator::DoubleEquals => "In",
        Operator::NotIn | Operator::NotEquals => "NotIn",
        Operator::Exists => return Some(json!({"key": key, "operator": "Exists"})),
        Operator::DoesNotExist => return Some(json!({"key": key, "operator": "DoesNotExist"})),
        Operator::GreaterThan | Operator::LessThan => return None,
    };
    Some(json!({"key": key, "operator": operator, "values": values}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::authenticated;

    #[test]
    fn questions_say_all_and_answers_are_read() {
        let user = authenticated("jane", ["team"]);
        let request = Attributes {
            verb: "get",
            resource: "pods",
            namespace: "d",
            resource_request: true,
            ..Attributes::default()
        };
        let spec = review(&user, &request)["spec"].clone();
        assert_eq!(
            spec["resourceAttributes"],
            json!({"namespace": "d", "verb": "get", "resource": "pods"})
        );
        assert_eq!(spec["groups"], json!(["team", "system:authenticated"]));
        let labels = meta::labels::Selector::parse("a=b,c notin (d,e),!f").expect("a selector");
        let selected = Attributes { labels: labels.requirements(), ..request };
        assert_eq!(
            review(&user, &selected)["spec"]["resourceAttributes"]["labelSelector"],
            json!({"requirements": [
                {"key": "a", "operator": "In", "values": ["b"]},
                {"key": "c", "operator": "NotIn", "values": ["d", "e"]},
                {"key": "f", "operator": "DoesNotExist"}]})
        );
        let path = Attributes { verb: "get", path: "/x", ..Attributes::default() };
        assert_eq!(review(&user, &path)["spec"]["nonResourceAttributes"]["path"], "/x");
        assert_eq!(opinion(&json!({"allowed": true, "reason": "r"})), Opinion::Allow("r".into()));
        assert_eq!(
            opinion(&json!({"allowed": true, "denied": true})),
            Opinion::Deny(String::new())
        );
        assert_eq!(opinion(&json!({})), Opinion::None(String::new()));
    }
}
