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
/// How long a verdict is remembered.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Verdicts remembered at most.
const MOST: usize = 1024;

/// Remembered verdicts.
#[derive(Default)]
pub(super) struct Reviews {
    access: Mutex<HashMap<(String, Attributes), (bool, Instant)>>,
}

/// What is asked for, in the API's terms.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Attributes {
    verb: &'static str,
    subresource: &'static str,
}

/// Who asks for what, taken from a request.
pub(super) struct Question {
    peer: Option<Arc<Peer>>,
    token: Option<String>,
    wanted: Attributes,
}

impl Question {
    pub(super) fn of(request: &Request<Body>) -> Self {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        Self {
            peer: request.extensions().get::<Arc<Peer>>().cloned(),
            token: header.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned),
            wanted: attributes(request.method(), request.uri().path()),
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
    let Question { peer, token, wanted } = question;
    let Some(subject) = authenticate(context, peer, token).await else {
        return Err(text(StatusCode::UNAUTHORIZED, "Unauthorized"));
    };
    if subject.organizations.iter().any(|group| group == ADMINISTRATORS) {
        return Ok(());
    }
    let key = (subject.common_name.clone(), wanted.clone());
    let known = reviews
        .access
        .lock()
        .get(&key)
        .filter(|(_, at)| at.elapsed() < REMEMBERED)
        .map(|(ok, _)| *ok);
    let allowed = match known {
        Some(allowed) => allowed,
        None => {
            let allowed = ask(context, &subject, &wanted).await?;
            let mut access = reviews.access.lock();
            if access.len() >= MOST {
                access.clear();
            }
            access.insert(key, (allowed, Instant::now()));
            allowed
        }
    };
    if allowed {
        return Ok(());
    }
    let Attributes { verb, subresource } = wanted;
    let message = format!(
        "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{subresource}])",
        subject.common_name
    );
    Err(text(StatusCode::FORBIDDEN, message))
}

async fn authenticate(
    context: &Context,
    peer: Option<Arc<Peer>>,
    token: Option<String>,
) -> Option<Subject> {
    if let ClientCertificate::Verified(chain) = &peer?.certificate {
        return chain.first().and_then(Subject::parse);
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
    wanted: &Attributes,
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

/// What a path is in the API's terms (upstream's table).
fn attributes(method: &Method, path: &str) -> Attributes {
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let first = path.split('/').find(|segment| !segment.is_empty()).unwrap_or_default();
    let subresource = match first {
        "stats" => "stats",
        "metrics" => "metrics",
        "logs" => "log",
        "healthz" => "healthz",
        "pods" | "runningpods" => "pods",
        _ => "proxy",
    };
    Attributes { verb, subresource }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_subresources() {
        let of = |method, path| attributes(&method, path);
        assert_eq!(
            of(Method::GET, "/containerLogs/n/p/c"),
            Attributes { verb: "get", subresource: "proxy" }
        );
        assert_eq!(
            of(Method::POST, "/exec/n/p/c"),
            Attributes { verb: "create", subresource: "proxy" }
        );
        assert_eq!(
            of(Method::GET, "/metrics/resource"),
            Attributes { verb: "get", subresource: "metrics" }
        );
    }
}
