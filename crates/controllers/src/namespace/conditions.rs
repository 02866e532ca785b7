//! What a Namespace being deleted says about what holds it up. Types, reasons and messages are
//! upstream's: users and `kubectl describe` read them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{NamespaceCondition, NamespaceStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::api::ApiResource;

/// What was found while emptying a Namespace.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Why not all resources could be found.
    pub(super) discovery: Option<String>,
    failures: Vec<String>,
    /// Objects left, by resource.
    remaining: BTreeMap<String, usize>,
    /// Objects held, by finalizer.
    finalizers: BTreeMap<String, usize>,
}

impl Report {
    /// Notes what is left of a resource.
    pub(super) fn left(
        &mut self,
        resource: &ApiResource,
        objects: usize,
        finalizers: BTreeMap<String, usize>,
    ) {
        if objects > 0 {
            self.remaining.insert(format!("{}.{}", resource.plural, resource.group), objects);
        }
        for (finalizer, count) in finalizers {
            *self.finalizers.entry(finalizer).or_default() += count;
        }
    }

    /// Notes that a resource could not be deleted.
    pub(super) fn failed(&mut self, resource: &ApiResource, error: &str) {
        self.failures.push(format!("{}: {error}", resource.plural));
    }

    /// Whether nothing holds the Namespace up.
    pub(super) fn is_empty(&self) -> bool {
        self.discovery.is_none() && self.failures.is_empty() && self.remaining.is_empty()
    }

    /// The status that says so.
    pub(super) fn status(&self, old: &NamespaceStatus, now: Timestamp) -> NamespaceStatus {
        let mut conditions = old.conditions.clone().unwrap_or_default();
        for (kind, problem, fine) in self.findings() {
            let (status, (reason, message)) = match problem {
                Some(problem) => ("True", problem),
                None => ("False", (fine.0, fine.1.to_owned())),
            };
            set(&mut conditions, kind, status, reason, message, now);
        }
        NamespaceStatus { phase: Some("Terminating".into()), conditions: Some(conditions) }
    }

    fn findings(&self) -> [Finding; 5] {
        let failures = (!self.failures.is_empty()).then(|| {
            let text = format!(
                "Failed to delete all resource types, {} remaining: {}",
                self.failures.len(),
                self.failures.join(", ")
            );
            ("ContentDeletionFailed", text)
        });
        let remaining = (!self.remaining.is_empty()).then(|| {
            let list =
                listed(&self.remaining, |what, n| format!("{what} has {n} resource instances"));
            ("SomeResourcesRemain", format!("Some resources are remaining: {list}"))
        });
        let finalizers = (!self.finalizers.is_empty()).then(|| {
            let list =
                listed(&self.finalizers, |what, n| format!("{what} in {n} resource instances"));
            let text = format!("Some content in the namespace has finalizers remaining: {list}");
            ("SomeFinalizersRemain", text)
        });
        let discovery = self.discovery.clone().map(|error| {
            ("DiscoveryFailed", format!("Discovery failed for some groups, 1 failing: {error}"))
        });
        [
            (
                "NamespaceDeletionDiscoveryFailure",
                discovery,
                ("ResourcesDiscovered", "All resources successfully discovered"),
            ),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                None,
                ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
            ),
            (
                "NamespaceDeletionContentFailure",
                failures,
                (
                    "ContentDeleted",
                    "All content successfully deleted, may be waiting on finalization",
                ),
            ),
            (
                "NamespaceContentRemaining",
                remaining,
                ("ContentRemoved", "All content successfully removed"),
            ),
            (
                "NamespaceFinalizersRemaining",
                finalizers,
                ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            ),
        ]
    }
}

/// Condition type; reason and message of a problem; reason and message when all is well.
type Finding = (&'static str, Option<(&'static str, String)>, (&'static str, &'static str));

fn listed(counts: &BTreeMap<String, usize>, text: impl Fn(&str, usize) -> String) -> String {
    let all: Vec<_> = counts.iter().map(|(what, count)| text(what, *count)).collect();
    all.join(", ")
}

fn set(
    conditions: &mut Vec<NamespaceCondition>,
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let known = conditions.iter_mut().find(|condition| condition.type_ == kind);
    let since = known
        .as_ref()
        .filter(|known| known.status == status)
        .and_then(|known| known.last_transition_time.clone());
    let fresh = NamespaceCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: since.or(Some(Time(now))),
    };
    match known {
        Some(known) => *known = fresh,
        None => conditions.push(fresh),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::time;

    #[test]
    fn what_remains_is_named_and_then_taken_back() {
        let pods = ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: "Pod".into(),
            plural: "pods".into(),
        };
        let mut report = Report::default();
        report.left(&pods, 2, BTreeMap::from([("example.com/hold".to_owned(), 1)]));
        assert!(!report.is_empty());
        let now = time("2026-01-01T00:00:00Z");
        let status = report.status(&NamespaceStatus::default(), now);
        assert_eq!(status.phase.as_deref(), Some("Terminating"));
        let said = |status: &NamespaceStatus, kind: &str| {
            let condition = status.conditions.iter().flatten().find(|one| one.type_ == kind);
            let condition = condition.expect("condition");
            (condition.status.clone(), condition.message.clone().expect("message"))
        };
        assert_eq!(
            said(&status, "NamespaceContentRemaining"),
            ("True".into(), "Some resources are remaining: pods. has 2 resource instances".into())
        );
        assert_eq!(
            said(&status, "NamespaceFinalizersRemaining").1,
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        );
        let later = Report::default().status(&status, time("2026-01-01T00:00:05Z"));
        assert_eq!(
            said(&later, "NamespaceContentRemaining"),
            ("False".into(), "All content successfully removed".into())
        );
        assert_eq!(later.conditions.expect("five").len(), 5);
    }
}
