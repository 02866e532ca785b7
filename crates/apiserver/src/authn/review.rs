//! Tokens that somebody else judges: a webhook that answers TokenReviews.

use std::{sync::Arc, time::Duration};

use registry::UserInfo;
use serde_json::{Value, json};

use super::Authenticated;
use crate::{hook::Hook, identity::Identity};

/// Who judges, and how long a judgement holds.
#[derive(Clone)]
pub struct TokenWebhook {
    /// Who is asked.
    pub hook: Hook,
    /// How long an answer is remembered (`--authentication-token-webhook-cache-ttl`).
    pub remember: Duration,
}

impl TokenWebhook {
    /// The user of a token; none if the webhook knows none.
    ///
    /// # Errors
    /// When there is no judgement.
    pub(super) async fn ask(
        &self,
        token: &str,
        audiences: &[&str],
    ) -> Result<Option<Authenticated>, String> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
            "spec": {"token": token, "audiences": audiences}
        });
        let answer = self.hook.post(review.to_string().into()).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        Ok(read(&answer["status"], audiences))
    }
}

/// The user an answer names, for those of the audiences that it accepts.
fn read(status: &Value, audiences: &[&str]) -> Option<Authenticated> {
    if status["authenticated"] != true {
        return None;
    }
    let strings = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut accepted = strings(&status["audiences"]);
    if !accepted.is_empty() {
        accepted.retain(|one| audiences.contains(&one.as_str()));
        if accepted.is_empty() {
            return None;
        }
    }
    let user = &status["user"];
    let extra = user["extra"].as_object().into_iter().flatten();
    let mut user = UserInfo {
        name: text(&user["username"]),
        uid: text(&user["uid"]),
        groups: strings(&user["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), strings(values))).collect(),
    };
    user.add_authenticated();
    Some(Authenticated { user: Arc::new(user), audiences: accepted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let status = json!({"authenticated": true, "audiences": ["a", "z"],
            "user": {"username": "jane", "uid": "1", "groups": ["team"], "extra": {"k": ["v"]}}});
        let found = read(&status, &["a", "b"]).expect("jane");
        assert_eq!((found.user.name.as_str(), found.audiences), ("jane", vec!["a".to_owned()]));
        assert_eq!(found.user.groups, ["team", "system:authenticated"]);
        assert_eq!(found.user.extra["k"], ["v"]);
        assert!(read(&status, &["b"]).is_none(), "it is for others");
        assert!(read(&json!({"authenticated": false, "user": {"username": "x"}}), &[]).is_none());
    }
}
