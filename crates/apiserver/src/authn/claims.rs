//! From the claims of a verified token to a user, as configured. Pure.

use registry::UserInfo;
use serde_json::{Map, Value};

use super::config::Jwt;
use crate::identity::{EXTRA_CREDENTIAL_ID, Identity};

type Claims = Map<String, Value>;

/// The user that `claims` stand for.
///
/// # Errors
/// Why they stand for nobody.
pub(super) fn user(config: &Jwt, claims: &Claims) -> Result<UserInfo, String> {
    let audiences = strings(claims.get("aud"));
    if !config.issuer.audiences.iter().any(|wanted| audiences.contains(&wanted.as_str())) {
        return Err(format!(
            "oidc: expected audience in {:?} got {audiences:?}",
            config.issuer.audiences
        ));
    }
    for rule in &config.claim_validation_rules {
        if claims.get(&rule.claim).and_then(Value::as_str) != Some(&rule.required_value) {
            return Err(format!("oidc: claim {} is not {:?}", rule.claim, rule.required_value));
        }
    }
    let mappings = &config.claim_mappings;
    let text = |claim: &str| match claims.get(claim).and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text),
        _ => Err(format!("oidc: claim {claim} is missing or no text")),
    };
    let name = text(&mappings.username.claim)?;
    // An address that nobody has confirmed is anybody's.
    if mappings.username.claim == "email"
        && claims.get("email_verified").is_some_and(|verified| *verified != true)
    {
        return Err("oidc: email not verified".into());
    }
    let prefixed = |prefix: &Option<String>, text: &str| {
        format!("{}{text}", prefix.as_deref().unwrap_or_default())
    };
    let mut user = UserInfo {
        name: prefixed(&mappings.username.prefix, name),
        groups: groups(claims.get(&mappings.groups.claim))?
            .into_iter()
            .map(|group| prefixed(&mappings.groups.prefix, group))
            .collect(),
        ..UserInfo::default()
    };
    if !mappings.uid.claim.is_empty() {
        text(&mappings.uid.claim)?.clone_into(&mut user.uid);
    }
    if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
        user.extra.insert(EXTRA_CREDENTIAL_ID.into(), vec![format!("JTI={id}")]);
    }
    user.add_authenticated();
    Ok(user)
}

fn groups(claim: Option<&Value>) -> Result<Vec<&str>, String> {
    let listed = strings(claim);
    let given = match claim {
        None | Some(Value::Null) => 0,
        Some(Value::Array(list)) => list.len(),
        Some(_) => 1,
    };
    if listed.len() == given { Ok(listed) } else { Err("oidc: groups are no list of texts".into()) }
}

/// A text, or the texts of a list.
fn strings(claim: Option<&Value>) -> Vec<&str> {
    match claim {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::AuthenticationConfiguration;
    use serde_json::json;

    fn check(claims: Value, expected: Result<(&str, &[&str]), &str>) {
        let text = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: https://issuer.example, audiences: [a, b], audienceMatchPolicy: MatchAny}
  claimValidationRules: [{claim: hd, requiredValue: example.com}]
  claimMappings: {username: {claim: email, prefix: "oidc:"}, groups: {claim: roles, prefix: "r:"}, uid: {claim: sub}}
"#;
        let config = AuthenticationConfiguration::parse(text, "").expect("good");
        let mut all =
            json!({"aud": "b", "hd": "example.com", "email": "j@x", "sub": "7", "jti": "t"});
        for (key, value) in claims.as_object().expect("claims") {
            all[key] = value.clone();
        }
        let found = user(&config.jwt[0], all.as_object().expect("claims"));
        match (found, expected) {
            (Ok(user), Ok((name, groups))) => {
                assert_eq!((user.name.as_str(), user.uid.as_str()), (name, "7"));
                assert_eq!(user.groups, groups);
                assert_eq!(user.extra[EXTRA_CREDENTIAL_ID], ["JTI=t"]);
            }
            (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
            (found, expected) => panic!("{claims}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn claims_become_users() {
        check(json!({}), Ok(("oidc:j@x", &["system:authenticated"])));
        check(
            json!({"roles": ["x", "y"]}),
            Ok(("oidc:j@x", &["r:x", "r:y", "system:authenticated"])),
        );
        check(json!({"roles": "x"}), Ok(("oidc:j@x", &["r:x", "system:authenticated"])));
        check(
            json!({"aud": ["z", "a"], "email_verified": true}),
            Ok(("oidc:j@x", &["system:authenticated"])),
        );
        check(json!({"aud": ["z"]}), Err("audience"));
        check(json!({"hd": "other"}), Err("hd"));
        check(json!({"email_verified": false}), Err("not verified"));
        check(json!({"email": ""}), Err("email"));
        check(json!({"sub": 7}), Err("sub"));
        check(json!({"roles": ["x", 1]}), Err("groups"));
    }
}
