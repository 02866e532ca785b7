//! Who may call the kubelet: client certificates of the cluster's authority, or tokens the API server vouches for;
//! administrators at once, everybody else if the API server says so. Verdicts are remembered for a short while.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header::AUTHORIZATION};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, api::PostParams};
use parking_lot::Mutex;
use pki::Subject;
use serve::{Body, ClientCertificate, Peer};
use tokio::time::Instant;
use tracing::warn;

use super::respond::text;
use crate::context::Context;

/// Members of this group may do anything.
const ADMINISTRATORS: &str = "system:masters";
/// The group of whoever has proven who it is.
const AUTHENTICATED: &str = "system:authenticated";
/// How long it is remembered that somebody may do something, and that somebody may not (upstream's).
const REMEMBERED: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(30));
/// Verdicts remembered at most.
const MOST: usize = 1024;

/// Remembered verdicts.
#[derive(Default)]
pub(super) struct Reviews {
    access: Mutex<HashMap<Key, (bool, Instant)>>,
}

/// Who, in which groups, asks for what.
type Key = (String, Vec<String>, Attributes);

impl Reviews {
    fn known(&self, key: &Key) -> Option<bool> {
        let (allowed, at) = *self.access.lock().get(key)?;
        let life = if allowed { REMEMBERED.0 } else { REMEMBERED.1 };
        (at.elapsed() < life).then_some(allowed)
    }

    fn remember(&self, key: Key, allowed: bool) {
        let mut access = self.access.lock();
        if access.len() >= MOST {
            access.clear();
        }
        access.insert(key, (allowed, Instant::now()));
    }
}

/// What is asked for, in the API's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Attributes {
    verb: &'static str,
    subresource: &'static str,
}

/// Who asks for what, taken from a request.
pub(super) struct Question {
    peer: Option<Arc<Peer>>,
    token: Option<String>,
    verb: &'static str,
    /// Subresources of nodes of which one must be granted, the narrowest first.
    subresources: &'static [&'static str],
}

impl Question {
    pub(super) fn of(request: &Request<Body>) -> Self {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        Self {
            peer: request.extensions().get::<Arc<Peer>>().cloned(),
            token: header.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned),
            verb: verb(request.method()),
            subresources: subresources(request.uri().path()),
        }
    }
}

/// Decides about a request.
///
/// # Errors
/// The refusal to send.
pub(super) async fn check(
    context: &Context,
    reviews: &Reviews,
    question: Question,
) -> Result<(), Response<Body>> {
    let Question { peer, token, verb, subresources } = question;
    let Some(subject) = authenticate(context, peer, token).await else {
        return Err(text(StatusCode::UNAUTHORIZED, "Unauthorized"));
    };
    if subject.organizations.iter().any(|group| group == ADMINISTRATORS) {
        return Ok(());
    }
    for subresource in subresources {
        let Subject { common_name, organizations } = subject.clone();
        let wanted = Attributes { verb, subresource };
        let key = (common_name, organizations, wanted);
        let allowed = match reviews.known(&key) {
            Some(allowed) => allowed,
            None => {
                let allowed = ask(context, &subject, wanted).await?;
                reviews.remember(key, allowed);
                allowed
            }
        };
        if allowed {
            return Ok(());
        }
    }
    let message = format!(
        "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
        subject.common_name,
        subresources.join(" ")
    );
    Err(text(StatusCode::FORBIDDEN, message))
}

async fn authenticate(
    context: &Context,
    peer: Option<Arc<Peer>>,
    token: Option<String>,
) -> Option<Subject> {
    if let ClientCertificate::Verified(chain) = &peer?.certificate {
        let mut subject = chain.first().and_then(Subject::parse)?;
        subject.organizations.push(AUTHENTICATED.to_owned());
        return Some(subject);
    }
    let review = TokenReview {
        spec: TokenReviewSpec { token: token?, audiences: None },
        ..Default::default()
    };
    let api: Api<TokenReview> = Api::all(context.client.clone());
    let status = api.create(&PostParams::default(), &review).await.ok()?.status?;
    let user = status.user.filter(|_| status.authenticated.unwrap_or(false))?;
    Some(Subject {
        common_name: user.username.unwrap_or_default(),
        organizations: user.groups.unwrap_or_default(),
    })
}

/// Asks the API server.
async fn ask(
    context: &Context,
    subject: &Subject,
    wanted: Attributes,
) -> Result<bool, Response<Body>> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(subject.common_name.clone()),
            groups: Some(subject.organizations.clone()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(wanted.verb.to_owned()),
                resource: Some("nodes".to_owned()),
                subresource: Some(wanted.subresource.to_owned()),
                version: Some("v1".to_owned()),
                name: Some(context.options.node_name.clone()),
                ..Default::default()
            }),
            ..Default::default()
        },
        ..Default::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(context.client.clone());
    match api.create(&PostParams::default(), &review).await {
        Ok(answer) => Ok(answer.status.is_some_and(|status| status.allowed)),
        Err(error) => {
            warn!(%error, "access could not be reviewed");
            Err(text(StatusCode::INTERNAL_SERVER_ERROR, "Authorization error"))
        }
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// What a path is in the API's terms (upstream's table). The last resort of what has become finer over time is
/// `proxy`, which was all there was.
fn subresources(path: &str) -> &'static [&'static str] {
    match path.split('/').find(|segment| !segment.is_empty()).unwrap_or_default() {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        "statusz" => &["statusz"],
        "flagz" => &["configz"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_subresources() {
        for (path, expected) in [
            ("/containerLogs/n/p/c", "proxy"),
            ("/exec/n/p/c", "proxy"),
            ("/metrics/resource", "metrics"),
            ("/stats/summary", "stats"),
            ("/pods", "pods proxy"),
            ("/runningpods/", "pods proxy"),
            ("/healthz", "healthz proxy"),
            ("/podsx", "proxy"),
            ("/", "proxy"),
        ] {
            assert_eq!(subresources(path).join(" "), expected, "{path}");
        }
        assert_eq!(verb(&Method::POST), "create");
        assert_eq!(verb(&Method::HEAD), "get");
    }
}
