//! The arithmetic of a budget, and the status it comes to. Pure.

use std::{collections::BTreeMap, sync::Arc};

use client::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        core::v1::Pod,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{
        apis::meta::v1::{Condition, Time},
        util::intstr::IntOrString,
    },
};
use meta::int_or_string::scaled_text;
use reconcile::{Action, Plan, merge_diff};
use serde_json::json;

use super::owners::Sizes;
use crate::objects::{count, is_ready, name};

/// An eviction that was allowed and has not deleted its pod after this time never will.
pub(super) const PATIENCE: SignedDuration = SignedDuration::from_secs(120);
/// When to try again what failed.
const AGAIN: SignedDuration = SignedDuration::from_secs(15);

/// A budget with what it is about.
pub(super) struct Snapshot {
    pub(super) budget: Arc<PodDisruptionBudget>,
    /// The pods it selects.
    pub(super) pods: Vec<Arc<Pod>>,
    /// What controls them, if that matters.
    pub(super) owners: Option<Result<Sizes, String>>,
}

/// Whether the budget depends on how many pods there should be: only `minAvailable` as a number
/// does not.
pub(super) fn asks_for_owners(budget: &PodDisruptionBudget) -> bool {
    budget.spec.as_ref().is_some_and(|spec| {
        spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
    })
}

/// Brings the status up to date.
pub(super) fn plan(snapshot: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let budget = &*snapshot.budget;
    let Some(spec) = &budget.spec else { return plan };
    if snapshot.pods.is_empty() {
        plan.note(budget, EventKind::Normal, "NoPods", "No matching pods found");
    }
    let old = budget.status.clone().unwrap_or_default();
    let new = match needs(spec, &snapshot.pods, snapshot.owners.as_ref()) {
        Ok(needs) => {
            if snapshot.owners.as_ref().is_some_and(|o| o.as_ref().is_ok_and(|o| o.unmanaged)) {
                plan.note(budget, EventKind::Warning, "UnmanagedPods", unmanaged(spec));
            }
            counted(snapshot, &old, &needs, now, &mut plan)
        }
        Err(problem) => {
            let note = format!("Failed to calculate the number of expected pods: {problem}");
            plan.note(budget, EventKind::Warning, "CalculateExpectedPodCountFailed", note);
            plan.requeue(now.checked_add(AGAIN).unwrap_or(Timestamp::MAX));
            let mut status =
                PodDisruptionBudgetStatus { disruptions_allowed: Some(0), ..old.clone() };
            set(&mut status, budget, ("False", "SyncFailed", &problem), now);
            status
        }
    };
    let new = PodDisruptionBudgetStatus { observed_generation: budget.metadata.generation, ..new };
    plan.status = write(budget, &old, &new);
    plan
}

/// How many pods there should be and how many of them have to work.
#[derive(Debug, PartialEq)]
struct Needs {
    expected: i32,
    healthy: i32,
}

fn needs(
    spec: &PodDisruptionBudgetSpec,
    pods: &[Arc<Pod>],
    owners: Option<&Result<Sizes, String>>,
) -> Result<Needs, String> {
    let expected = match owners {
        Some(sizes) => sizes.as_ref().map_err(Clone::clone)?.expected,
        None => count(pods.len()),
    };
    let of_expected = |value: &IntOrString| match value {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(text) => scaled_text(text, expected.into(), true)
            .map(|number| i32::try_from(number).unwrap_or(i32::MAX))
            .map_err(|error| error.to_string()),
    };
    let healthy = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => expected.saturating_sub(of_expected(most)?).max(0),
        (None, Some(least)) => of_expected(least)?,
        (None, None) => 0,
    };
    Ok(Needs { expected, healthy })
}

/// The status when all is known.
fn counted(
    snapshot: &Snapshot,
    old: &PodDisruptionBudgetStatus,
    needs: &Needs,
    now: Timestamp,
    plan: &mut Plan,
) -> PodDisruptionBudgetStatus {
    let disrupted = disrupted(snapshot, old, now, plan);
    let healthy = snapshot.pods.iter().filter(|pod| {
        let leaving = pod.metadata.deletion_timestamp.is_some()
            || disrupted.contains_key(name(&pod.metadata));
        !leaving && is_ready(pod)
    });
    let healthy = count(healthy.count());
    let allowed = match needs.expected {
        ..=0 => 0,
        _ => healthy.saturating_sub(needs.healthy).max(0),
    };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(needs.healthy),
        expected_pods: Some(needs.expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        ..old.clone()
    };
    let verdict = if allowed > 0 {
        ("True", "SufficientPods", "")
    } else {
        ("False", "InsufficientPods", "")
    };
    set(&mut status, &snapshot.budget, verdict, now);
    status
}

/// Pods whose eviction was allowed and that are still there, untouched.
fn disrupted(
    snapshot: &Snapshot,
    old: &PodDisruptionBudgetStatus,
    now: Timestamp,
    plan: &mut Plan,
) -> BTreeMap<String, Time> {
    let mut kept = BTreeMap::new();
    let Some(known) = &old.disrupted_pods else { return kept };
    for pod in snapshot.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let Some((name, since)) = known.get_key_value(name(&pod.metadata)) else { continue };
        let due = since.0.checked_add(PATIENCE).unwrap_or(Timestamp::MAX);
        if due < now {
            let key = client::ObjectKey::of(&*snapshot.budget);
            let note = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            plan.note(&**pod, EventKind::Warning, "NotDeleted", note);
        } else {
            plan.requeue(due.checked_add(SignedDuration::from_secs(1)).unwrap_or(due));
            kept.insert(name.clone(), since.clone());
        }
    }
    kept
}

/// Sets the one condition; its time moves only with its status.
fn set(
    status: &mut PodDisruptionBudgetStatus,
    budget: &PodDisruptionBudget,
    (verdict, reason, message): (&str, &str, &str),
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().position(|one| one.type_ == "DisruptionAllowed");
    let since = known
        .filter(|index| conditions[*index].status == verdict)
        .map_or(Time(now), |index| conditions[index].last_transition_time.clone());
    let condition = Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: verdict.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: budget.metadata.generation,
        last_transition_time: since,
    };
    match known {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
}

/// The write of the status, against the version it was computed from: evictions count in it too.
fn write(
    budget: &PodDisruptionBudget,
    old: &PodDisruptionBudgetStatus,
    new: &PodDisruptionBudgetStatus,
) -> Option<Action> {
    // A status that nobody has written yet lacks what a computed one has even where it is zero.
    let old = budget.status.as_ref().map_or(json!({}), |_| json!(old));
    let patch = merge_diff(&old, &json!(new))?;
    Some(Action::patch_with(budget, Some("status"), json!({ "status": patch }), true))
}

fn unmanaged(spec: &PodDisruptionBudgetSpec) -> String {
    let selector = spec.selector.as_ref().map(crate::objects::selector);
    let selector = selector.map_or_else(String::new, |selector| selector.to_string());
    format!(
        "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. \
         As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. \
         To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_yaml, time};

    const NOW: &str = "2026-01-01T00:10:00Z";

    /// Ready and unready pods, and those on their way out, told as `r`, `u` and `d`.
    fn pods(told: &str) -> Vec<Arc<Pod>> {
        let pod = |(index, kind): (usize, char)| {
            let ready = if kind == 'u' { "False" } else { "True" };
            let going =
                if kind == 'd' { ", deletionTimestamp: '2026-01-01T00:00:00Z'" } else { "" };
            Arc::new(from_yaml(&format!(
                "{{metadata: {{name: p{index}, namespace: d{going}}},
                  status: {{conditions: [{{type: Ready, status: '{ready}'}}]}}}}"
            )))
        };
        told.chars().enumerate().map(pod).collect()
    }

    fn snapshot(spec: &str, status: &str, told: &str, owners: Option<i32>) -> Snapshot {
        Snapshot {
            budget: Arc::new(from_yaml(&format!(
                "{{metadata: {{name: b, namespace: d, generation: 3}}, spec: {spec}, status: {status}}}"
            ))),
            pods: pods(told),
            owners: owners.map(|expected| Ok(Sizes { expected, unmanaged: false })),
        }
    }

    /// Allowed disruptions, current and desired healthy pods, expected pods.
    fn check(spec: &str, told: &str, owners: Option<i32>) -> (i64, i64, i64, i64) {
        let snapshot = snapshot(spec, "{}", told, owners);
        assert_eq!(asks_for_owners(&snapshot.budget), owners.is_some(), "{spec}");
        let status = status_of(&plan(&snapshot, time(NOW)));
        let number = |field: &str| status[field].as_i64().expect(field);
        (
            number("disruptionsAllowed"),
            number("currentHealthy"),
            number("desiredHealthy"),
            number("expectedPods"),
        )
    }

    fn status_of(plan: &Plan) -> serde_json::Value {
        let Some(Action::Patch { patch, .. }) = &plan.status else { panic!("no status: {plan:?}") };
        patch["status"].clone()
    }

    #[test]
    fn budgets_in_numbers_and_shares() {
        assert_eq!(check("{minAvailable: 2}", "rrr", None), (1, 3, 2, 3));
        assert_eq!(check("{minAvailable: 2}", "rud", None), (0, 1, 2, 3));
        assert_eq!(check("{minAvailable: 0}", "", None), (0, 0, 0, 0), "nothing to disrupt");
        assert_eq!(check("{minAvailable: 50%}", "rrr", Some(3)), (1, 3, 2, 3), "rounded up");
        assert_eq!(check("{maxUnavailable: 1}", "rrr", Some(3)), (1, 3, 2, 3));
        assert_eq!(check("{maxUnavailable: 1}", "rr", Some(3)), (0, 2, 2, 3), "one is missing");
        assert_eq!(check("{maxUnavailable: 30%}", "rrrr", Some(4)), (2, 4, 2, 4), "rounded up");
        assert_eq!(check("{maxUnavailable: 5}", "rr", Some(2)), (2, 2, 0, 2));
    }

    #[test]
    fn an_allowed_eviction_counts_until_its_pod_goes_or_two_minutes_are_over() {
        let status = |at: &str| {
            format!(
                "{{observedGeneration: 3, currentHealthy: 2, desiredHealthy: 1, expectedPods: 3, disruptionsAllowed: 1, disruptedPods: {{p0: '{at}', gone: '{at}'}}}}"
            )
        };
        let fresh = snapshot("{minAvailable: 1}", &status("2026-01-01T00:09:00Z"), "rrr", None);
        let planned = plan(&fresh, time(NOW));
        let written = status_of(&planned);
        assert_eq!(written["disruptedPods"], json!({"gone": null}), "{written}");
        assert_eq!(written["currentHealthy"], serde_json::Value::Null, "still two");
        assert_eq!(planned.requeue_at, Some(time("2026-01-01T00:11:01Z")));
        let late = snapshot("{minAvailable: 1}", &status("2026-01-01T00:07:00Z"), "rrr", None);
        let planned = plan(&late, time(NOW));
        assert_eq!(planned.notes[0].reason, "NotDeleted");
        assert_eq!(status_of(&planned)["currentHealthy"], 3);
        assert_eq!(status_of(&planned)["disruptionsAllowed"], 2);
    }

    #[test]
    fn what_cannot_be_counted_allows_nothing() {
        let mut snapshot = snapshot(
            "{maxUnavailable: 1}",
            "{disruptionsAllowed: 1, currentHealthy: 2, desiredHealthy: 1, expectedPods: 2}",
            "rr",
            Some(0),
        );
        snapshot.owners = Some(Err("jobs.batch does not implement the scale subresource".into()));
        let planned = plan(&snapshot, time(NOW));
        let status = status_of(&planned);
        assert_eq!(status["disruptionsAllowed"], 0);
        assert_eq!(status["conditions"][0]["reason"], "SyncFailed");
        assert_eq!(status["observedGeneration"], 3);
        assert!(planned.requeue_at.is_some());
    }

    #[test]
    fn a_status_that_is_right_is_not_written() {
        let mut snapshot = snapshot("{minAvailable: 1}", "{}", "rr", None);
        let mut budget = json!(*snapshot.budget);
        crate::testing::merge(&mut budget["status"], &status_of(&plan(&snapshot, time(NOW))));
        snapshot.budget = Arc::new(serde_json::from_value(budget).expect("a budget"));
        assert_eq!(plan(&snapshot, time("2026-01-01T01:00:00Z")).status, None);
    }
}
