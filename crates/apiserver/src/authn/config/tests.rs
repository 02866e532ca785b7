//! Configurations and token files: what is read, what is refused.

use super::*;

fn parse(jwt: &str) -> Result<AuthenticationConfiguration, String> {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: [{jwt}]\n"
    );
    AuthenticationConfiguration::parse(&text, "https://own")
}

fn refused(issuer: &str, rest: &str, why: &str) {
    let error = parse(&format!("{{issuer: {{{issuer}}}, {rest}}}")).expect_err(why);
    assert!(error.contains(why), "{error}");
}

const ISSUER: &str = "url: https://issuer.example, audiences: [skiff]";
const NAME: &str = "claimMappings: {username: {claim: sub, prefix: ''}}";

#[test]
fn configurations_are_read_or_refused_with_the_field() {
    let good = parse(&format!("{{issuer: {{{ISSUER}}}, {NAME}}}")).expect("good");
    assert_eq!(good.jwt[0].claim_mappings.username.claim, "sub");
    refused("url: http://x, audiences: [a]", NAME, "jwt[0].issuer.url");
    refused("url: https://own, audiences: [a]", NAME, "another's");
    refused("url: https://x, audiences: []", NAME, "issuer.audiences");
    refused("url: https://x, audiences: [a, b]", NAME, "MatchAny");
    refused("url: https://x, audiences: [a], discoveryURL: https://x/", NAME, "different");
    refused(ISSUER, "claimMappings: {username: {claim: sub}}", "prefix is required");
    refused(ISSUER, "claimMappings: {username: {expression: claims.sub}}", EXPRESSION);
    refused(ISSUER, &format!("userValidationRules: [{{expression: 'true'}}], {NAME}"), EXPRESSION);
    refused(ISSUER, &format!("claimValidationRules: [{{expression: 'true'}}], {NAME}"), EXPRESSION);
    refused(ISSUER, &format!("claimRules: [], {NAME}"), "unknown field");
    assert!(AuthenticationConfiguration::parse("kind: X\napiVersion: v1", "").is_err());
}

#[test]
fn anonymous_requests_are_for_listed_paths() {
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {enabled: true, conditions: [{path: /livez}]}";
    let anonymous = AuthenticationConfiguration::parse(text, "").expect("good").anonymous;
    let anonymous = anonymous.expect("said");
    assert!(anonymous.allows("/livez") && !anonymous.allows("/livez/ping"));
    assert!(Anonymous::everywhere(true).allows("/x") && !Anonymous::everywhere(false).allows("/x"));
    let wrong = text.replace("true", "false");
    assert!(AuthenticationConfiguration::parse(&wrong, "").is_err());
}

#[test]
fn token_files_hold_users_with_groups() {
    let text = "# comment\nt1,jane,1,\"team,admins\"\n\n t2 , joe , 2 \nt3,\"a\"\"b\",3,,more\n";
    let tokens = static_tokens(text).expect("good");
    let users: Vec<_> = tokens.iter().map(|t| (t.token.as_str(), t.user.name.as_str())).collect();
    assert_eq!(users, [("t1", "jane"), ("t2", "joe"), ("t3", "a\"b")]);
    assert_eq!(tokens[0].user.groups, ["team", "admins", "system:authenticated"]);
    assert!(static_tokens("a,b").is_err_and(|why| why.contains("line 1")));
    assert!(static_tokens("a,b,c,\"d").is_err() && static_tokens(",b,c").is_err());
}
