//! Approves what nodes ask for, and refuses a machine that asks for the identity of a node that
//! exists.
//!
//! A bootstrap token only ever gives a *new* node its identity: a node renews with its own
//! certificate, so whoever steals a token can become no node that is there. One that lost its
//! certificate has to be removed first.

use std::{collections::HashMap, sync::Arc};

use client::{Cache, Caches, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    certificates::v1::CertificateSigningRequest,
    core::v1::Node,
};
use kube::{
    Api,
    api::{ApiResource, PostParams},
};
use parking_lot::Mutex;
use pki::{SigningRequest, Subject};
use reconcile::{
    Action, ApplyError, Context, Deps, Outcome, Plan, Reconciler, Runtime, Wrote, itself,
};
use tokio_util::sync::CancellationToken;

use super::rules::{self, CLIENT, KUBELET_CLIENT, KUBELET_SERVING, NODE_PREFIX, NODES};
use super::{APPROVED, DENIED, condition, is_signed, read, with_condition};

/// Name in logs, metrics and `--controllers`.
pub(crate) const NAME: &str = "certificatesigningrequest-approving-controller";

/// The group of users of bootstrap tokens.
const BOOTSTRAPPERS: &str = "system:bootstrappers";
/// Prefix and group of nodes' second identity.
const NETWORK_PREFIX: &str = "skiff:network:";
const NETWORKS: &str = "skiff:network";

/// Requests that wait, by who asks.
const PENDING_OF: &str = "pending-of";
/// Approved requests for nodes' identities, by the identity.
const APPROVED_FOR: &str = "approved-for";

/// Runs the controller until `shutdown`.
pub(crate) async fn run(caches: Caches, deps: Deps, shutdown: CancellationToken) {
    let requests = caches.cache::<CertificateSigningRequest>();
    let nodes = caches.cache::<Node>();
    let pending = requests.clone();
    requests.index(PENDING_OF, |request| {
        request.spec.username.clone().filter(|_| is_pending(request)).into_iter().collect()
    });
    requests.index(APPROVED_FOR, |request| {
        let ours = request.spec.signer_name == KUBELET_CLIENT;
        let approved = ours && condition(request, APPROVED).is_some();
        let asked = approved.then(|| read(request).ok()).flatten();
        asked.map(|asked| asked.subject.common_name).into_iter().collect()
    });
    Runtime::new(NAME, deps)
        .watch(&requests, itself)
        // A serving certificate may be asked for before the Node has its addresses.
        .watch(&nodes, move |change| {
            let Some(node) = &change.after else { return Vec::new() };
            let user =
                format!("{NODE_PREFIX}{}", node.metadata.name.as_deref().unwrap_or_default());
            let waiting = pending.indexed(PENDING_OF, &user);
            waiting.iter().map(|request| ObjectKey::of(&**request)).collect()
        })
        // One after the other: two machines that ask for one name at once must not both get it.
        .concurrent(1)
        .run_reconciler(Approver { requests, nodes, given: Mutex::default() }, shutdown)
        .await;
}

fn is_pending(request: &CertificateSigningRequest) -> bool {
    !is_signed(request)
        && condition(request, APPROVED).is_none()
        && condition(request, DENIED).is_none()
}

struct Approver {
    requests: Cache<CertificateSigningRequest>,
    nodes: Cache<Node>,
    /// Names given out a moment ago, with the key that got them: the caches may not know yet.
    given: Mutex<HashMap<String, (String, Timestamp)>>,
}

/// What is to be done with a request.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing: somebody else decides.
    Leave,
    /// Approve if the requester may create this subresource of requests.
    IfAllowed(&'static str, &'static str),
    /// Approve.
    Approve(&'static str),
    /// Refuse.
    Deny(&'static str, String),
}

impl Reconciler for Approver {
    async fn reconcile(
        &self,
        key: &ObjectKey,
        context: Context,
        deps: &Deps,
    ) -> Result<Outcome, (ApplyError, Vec<Wrote>)> {
        let Some(request) = self.requests.get_key(key).filter(|request| is_pending(request)) else {
            return Ok(Outcome::default());
        };
        let Ok(asked) = read(&request) else { return Ok(Outcome::default()) };
        let (kind, reason, message) = match self.judge(&request, &asked, context.now) {
            Verdict::Leave => return Ok(Outcome::default()),
            Verdict::Approve(message) => (APPROVED, "AutoApproved", message.to_owned()),
            Verdict::Deny(reason, message) => (DENIED, reason, message),
            Verdict::IfAllowed(subresource, message) => {
                let resource = ApiResource::erase::<SubjectAccessReview>(&());
                let failed =
                    |error| (ApplyError::request("creating", &resource, "", error), Vec::new());
                if !allowed(&request, subresource, &deps.client).await.map_err(failed)? {
                    return Ok(Outcome::default());
                }
                (APPROVED, "AutoApproved", message.to_owned())
            }
        };
        let patch = with_condition(&request, kind, reason, &message, context.now);
        let mut plan = Plan::nothing();
        plan.act(Action::patch_with(&*request, Some("approval"), patch, true));
        let wrote = reconcile::apply(plan, &deps.client, &deps.events).await?;
        tracing::info!(
            request = key.name,
            subject = asked.subject.common_name,
            decision = kind,
            message,
            "certificate request"
        );
        if kind == APPROVED && request.spec.signer_name == KUBELET_CLIENT {
            let mut given = self.given.lock();
            given.retain(|_, (_, at)| is_recent(*at, context.now));
            given.insert(asked.subject.common_name.clone(), (asked.key_name(), context.now));
        }
        Ok(Outcome { wrote, requeue_at: None })
    }
}

impl Approver {
    fn judge(
        &self,
        request: &CertificateSigningRequest,
        asked: &SigningRequest,
        now: Timestamp,
    ) -> Verdict {
        let node = |name: &str| self.nodes.get(None, name);
        let granted = || {
            let given = self.given.lock().get(&asked.subject.common_name).cloned();
            let given = given.filter(|(_, at)| is_recent(*at, now)).map(|(key, _)| key);
            let name = &asked.subject.common_name;
            let approved = self.requests.indexed(APPROVED_FOR, name);
            given.into_iter().chain(granted(&asked.subject, &approved, now)).collect()
        };
        judge(request, asked, node, granted)
    }
}

fn judge(
    request: &CertificateSigningRequest,
    asked: &SigningRequest,
    node: impl Fn(&str) -> Option<Arc<Node>>,
    granted: impl FnOnce() -> Vec<String>,
) -> Verdict {
    let spec = &request.spec;
    let usages = spec.usages.as_deref().unwrap_or_default();
    let user = spec.username.as_deref().unwrap_or_default();
    let in_group = |name: &str| spec.groups.iter().flatten().any(|group| group == name);
    let own = user.strip_prefix(NODE_PREFIX).filter(|_| in_group(NODES));
    match spec.signer_name.as_str() {
        KUBELET_CLIENT if rules::kubelet_client(asked, usages).is_ok() => {
            if user == asked.subject.common_name {
                return Verdict::IfAllowed(
                    "selfnodeclient",
                    "Auto approving self kubelet client certificate after SubjectAccessReview.",
                );
            }
            let name = &asked.subject.common_name[NODE_PREFIX.len()..];
            if let Some(problem) = meta::names::is_dns1123_subdomain(name).into_iter().next() {
                return Verdict::Deny(
                    "BadNodeName",
                    format!("{name:?} cannot be a node's name: {problem}"),
                );
            }
            if in_group(BOOTSTRAPPERS)
                && let Some(refusal) = taken(name, asked, node(name).is_some(), granted)
            {
                return refusal;
            }
            Verdict::IfAllowed(
                "nodeclient",
                "Auto approving kubelet client certificate after SubjectAccessReview.",
            )
        }
        KUBELET_SERVING if rules::kubelet_serving(asked, usages).is_ok() => match own {
            Some(name) if user == asked.subject.common_name => {
                let covers = node(name).is_some_and(|node| is_of(&node, name, asked));
                if covers {
                    Verdict::Approve("The names and addresses are the node's own.")
                } else {
                    Verdict::Leave
                }
            }
            _ => Verdict::Leave,
        },
        CLIENT if asked.subject.organizations == [NETWORKS] => match own {
            Some(name)
                if asked.subject.common_name == format!("{NETWORK_PREFIX}{name}")
                    && rules::check(CLIENT, asked, usages).is_ok()
                    && has_no_names(asked) =>
            {
                Verdict::Approve("The identity of the network of the node that asks.")
            }
            _ => Verdict::Leave,
        },
        _ => Verdict::Leave,
    }
}

fn has_no_names(asked: &SigningRequest) -> bool {
    let SigningRequest { dns_names, addresses, emails, uris, .. } = asked;
    dns_names.is_empty() && addresses.is_empty() && emails.is_empty() && uris.is_empty()
}

/// Why a bootstrap token gives no identity of this name: somebody has it, or is just getting it.
fn taken(
    name: &str,
    asked: &SigningRequest,
    exists: bool,
    granted: impl FnOnce() -> Vec<String>,
) -> Option<Verdict> {
    if exists {
        return Some(Verdict::Deny(
            "NodeNameTaken",
            format!(
                "a node named {name} exists: choose another name with --node-name, or, if this \
                 machine is to take its place, remove it first with `kubectl delete node {name}`"
            ),
        ));
    }
    // The same machine may ask again, with the same key.
    granted().iter().any(|key| *key != asked.key_name()).then(|| {
        Verdict::Deny(
            "NodeNameTaken",
            format!(
                "another machine is just joining as {name}: choose another name with --node-name, \
                 or try again in a minute"
            ),
        )
    })
}

/// The keys that were given this identity a moment ago, and whose machines may not have registered yet.
fn granted(
    subject: &Subject,
    requests: &[Arc<CertificateSigningRequest>],
    now: Timestamp,
) -> Vec<String> {
    let recent = requests.iter().filter(|request| {
        let approval = condition(request, APPROVED);
        request.spec.signer_name == KUBELET_CLIENT
            && approval
                .and_then(|at| at.last_update_time.as_ref())
                .is_some_and(|at| is_recent(at.0, now))
    });
    let asked = recent.filter_map(|request| read(request).ok());
    asked.filter(|asked| asked.subject == *subject).map(|asked| asked.key_name()).collect()
}

/// How long a machine may take from its certificate to its Node, in seconds.
const REGISTRATION: i64 = 60;

fn is_recent(time: Timestamp, now: Timestamp) -> bool {
    now.as_second() - time.as_second() < REGISTRATION
}

/// Whether every name and address asked for is the node's.
fn is_of(node: &Node, name: &str, asked: &SigningRequest) -> bool {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let known =
        |wanted: &str| addresses.into_iter().flatten().any(|address| address.address == wanted);
    asked.dns_names.iter().all(|wanted| wanted == name || known(wanted))
        && asked.addresses.iter().all(|wanted| known(&wanted.to_string()))
}

async fn allowed(
    request: &CertificateSigningRequest,
    subresource: &str,
    client: &kube::Client,
) -> Result<bool, kube::Error> {
    let spec = request.spec.clone();
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username,
            uid: spec.uid,
            groups: spec.groups,
            extra: spec.extra,
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".to_owned()),
                resource: Some("certificatesigningrequests".to_owned()),
                verb: Some("create".to_owned()),
                subresource: Some(subresource.to_owned()),
                version: Some("*".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = Api::<SubjectAccessReview>::all(client.clone())
        .create(&PostParams::default(), &review)
        .await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
    use pki::{NewKey, Profile};

    use super::*;
    use crate::testing::from_yaml;

    const TOKEN: (&str, &str) = ("system:bootstrap:abcdef", BOOTSTRAPPERS);
    const NODE: (&str, &str) = ("system:node:b", NODES);

    fn request(signer: &str, by: (&str, &str), profile: &Profile) -> CertificateSigningRequest {
        let text = NewKey::generate().unwrap().request(profile).unwrap();
        let purpose = if signer == KUBELET_SERVING { "server auth" } else { "client auth" };
        CertificateSigningRequest {
            spec: CertificateSigningRequestSpec {
                signer_name: signer.into(),
                username: Some(by.0.into()),
                groups: Some(vec![by.1.into()]),
                usages: Some(vec![purpose.into(), "digital signature".into()]),
                request: ByteString(text.into_bytes()),
                ..CertificateSigningRequestSpec::default()
            },
            ..CertificateSigningRequest::default()
        }
    }

    fn verdict(
        request: &CertificateSigningRequest,
        others: &[CertificateSigningRequest],
    ) -> Verdict {
        let known: Node = from_yaml(
            "{metadata: {name: b}, status: {addresses: [{type: InternalIP, address: 10.0.0.2}]}}",
        );
        let node = |name: &str| (name == "b").then(|| Arc::new(known.clone()));
        let others: Vec<_> = others.iter().cloned().map(Arc::new).collect();
        let asked = read(request).unwrap();
        judge(request, &asked, node, || granted(&asked.subject, &others, Timestamp::now()))
    }

    #[test]
    fn a_token_makes_new_nodes_only() {
        let new = Profile::client("system:node:c", Some(NODES));
        let old = Profile::client("system:node:b", Some(NODES));
        let first = request(KUBELET_CLIENT, TOKEN, &new);
        assert!(matches!(verdict(&first, &[]), Verdict::IfAllowed("nodeclient", _)));
        let Verdict::Deny(_, why) = verdict(&request(KUBELET_CLIENT, TOKEN, &old), &[]) else {
            panic!("not denied");
        };
        assert!(why.contains("kubectl delete node b"), "{why}");
        // The name is somebody else's from the moment of the approval.
        let mut granted = first.clone();
        let now = Timestamp::now();
        let status = with_condition(&granted, APPROVED, "AutoApproved", "", now)["status"].clone();
        granted.status = serde_json::from_value(status).unwrap();
        let second = request(KUBELET_CLIENT, TOKEN, &new);
        assert!(matches!(verdict(&second, &[granted.clone()]), Verdict::Deny("NodeNameTaken", _)));
        assert!(matches!(verdict(&first, &[granted]), Verdict::IfAllowed("nodeclient", _)));
        let odd = Profile::client("system:node:B/..", Some(NODES));
        assert!(matches!(
            verdict(&request(KUBELET_CLIENT, TOKEN, &odd), &[]),
            Verdict::Deny("BadNodeName", _)
        ));
    }

    #[test]
    fn a_node_gets_its_own_and_nothing_else() {
        let own = Profile::client("system:node:b", Some(NODES));
        assert!(matches!(
            verdict(&request(KUBELET_CLIENT, NODE, &own), &[]),
            Verdict::IfAllowed("selfnodeclient", _)
        ));
        let network = Profile::client("skiff:network:b", Some(NETWORKS));
        assert!(matches!(verdict(&request(CLIENT, NODE, &network), &[]), Verdict::Approve(_)));
        assert_eq!(verdict(&request(CLIENT, TOKEN, &network), &[]), Verdict::Leave);
        let others = Profile::client("skiff:network:a", Some(NETWORKS));
        assert_eq!(verdict(&request(CLIENT, NODE, &others), &[]), Verdict::Leave);
        let admin = Profile::client("skiff:network:b", Some("system:masters"));
        assert_eq!(verdict(&request(CLIENT, NODE, &admin), &[]), Verdict::Leave);
        let serving = |address: &str, name: &str| Profile {
            organization: Some(NODES.into()),
            ..Profile::server("system:node:b", vec![name.into()], vec![address.parse().unwrap()])
        };
        let ask = |profile: &Profile, by| verdict(&request(KUBELET_SERVING, by, profile), &[]);
        assert!(matches!(ask(&serving("10.0.0.2", "b"), NODE), Verdict::Approve(_)));
        assert_eq!(ask(&serving("10.0.0.3", "b"), NODE), Verdict::Leave);
        assert_eq!(ask(&serving("10.0.0.2", "a"), NODE), Verdict::Leave);
        assert_eq!(ask(&serving("10.0.0.2", "b"), ("system:node:a", NODES)), Verdict::Leave);
    }
}
