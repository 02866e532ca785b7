//! Eviction: a deletion of a pod that its disruption budget has to allow.

use std::sync::Arc;

use meta::{GroupVersionKind, Selector, Status, StatusCause, time};
use serde_json::Value;
use store::Expect;

use crate::admission::Operation;
use crate::delete::{Options, delete_named};
use crate::object::{Object, child, meta_text};
use crate::outcome::Answer;
use crate::pipeline::{self, Context, Failure, Subject, admit_validate, commit, success};
use crate::read;
use crate::registry::Registry;
use crate::request::{Action, Request};

/// A budget that counts more disrupted pods than this is not kept up to date by anybody.
const MOST_DISRUPTED: usize = 2000;

/// How often the count of a contended budget is tried.
const MOST_TRIES: usize = 20;

/// POST of `pods/<name>/eviction`.
pub(super) async fn execute(
    engine: &Arc<Registry>,
    request: &Request,
    kind: &GroupVersionKind,
) -> Answer {
    let Action::Create(body) = &request.action else { return Err(Status::no_such_path()) };
    let context = Context::new(engine, request)?;
    let eviction = pipeline::decode(&context, body, kind)?;
    let name = context.name()?;
    let given = meta_text(&eviction, "name");
    if !given.is_empty() && given != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = Options::of(&eviction["deleteOptions"])?;
    options.dry_run |= request.params.dry_run;
    let read = Request { subresource: None, params: crate::Params::default(), ..request.clone() };
    let pod = read::find(engine, &read).await?.value(&request.row);
    let subject =
        Subject { operation: Operation::Create, subresource: Some("eviction"), name, old: None };
    admit_validate(&context, subject, Some(&eviction)).await?;
    if !is_free(&pod) {
        ask_budget(&context, &pod, options.dry_run).await?;
        // What the budget allowed is this very pod.
        options.uid.get_or_insert_with(|| meta_text(&pod, "uid").to_owned());
    }
    delete_named(&context, name, &options).await?;
    Ok(success(&context, 201, Value::Null))
}

/// Whether a pod serves nobody, so that no budget counts it.
fn is_free(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
        || matches!(
            pod["status"]["phase"].as_str().unwrap_or_default(),
            "" | "Pending" | "Succeeded" | "Failed"
        )
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|list| meta::conditions::is(list, "Ready", "True"))
}

/// Counts the eviction against the pod's budget, if it has one.
async fn ask_budget(context: &Context<'_>, pod: &Value, dry_run: bool) -> Result<(), Status> {
    for _ in 0..MOST_TRIES {
        let Some((request, budget)) = budget_of(context, pod)? else { return Ok(()) };
        let of_budget = Context::new(context.engine, &request)?;
        let mut object = budget.value(&of_budget.stored);
        if !is_ready(pod) && unready_may_go(&object) {
            return Ok(());
        }
        check(&object)?;
        if dry_run {
            return Ok(());
        }
        let status = child(&mut object, "status");
        let allowed = status.get("disruptionsAllowed").and_then(Value::as_i64).unwrap_or(0);
        status.insert("disruptionsAllowed".to_owned(), (allowed - 1).into());
        let now = Value::from(time::seconds(context.now));
        let disrupted =
            status.entry("disruptedPods").or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Value::Object(disrupted) = disrupted {
            disrupted.insert(meta_text(pod, "name").to_owned(), now);
        }
        let expect = Expect::Modified(budget.revision());
        match commit(&of_budget, budget.key(), expect, &object).await {
            Ok(_) => return Ok(()),
            Err(Failure::Conflict) => {}
            Err(Failure::Refused(status)) => return Err(status),
        }
    }
    Err(Status::too_many_requests(VIOLATES, 10))
}

const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// The one budget that selects a pod, and a request in whose name it is written.
fn budget_of(context: &Context<'_>, pod: &Value) -> Result<Option<(Request, Object)>, Status> {
    let engine = context.engine;
    let Some(row) = engine.rows.get("policy", "v1", "poddisruptionbudgets") else {
        return Ok(None);
    };
    let labels = &pod["metadata"]["labels"];
    let mut budgets = engine.list(row, context.namespace()).into_iter().filter(|budget| {
        let selector = budget.value(row)["spec"]["selector"].clone();
        !selector.is_null()
            && Selector::from_label_selector(&selector)
                .is_ok_and(|s| s.matches_with(|label| labels[label].as_str()))
    });
    let Some(budget) = budgets.next() else { return Ok(None) };
    if budgets.next().is_some() {
        return Err(Status::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    let request = Request { row: row.clone(), subresource: None, ..context.request.clone() };
    Ok(Some((request, budget)))
}

/// Whether a pod that is not ready may go without being counted.
fn unready_may_go(budget: &Value) -> bool {
    let number = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    let desired = number("desiredHealthy");
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        || (number("currentHealthy") >= desired && desired > 0)
}

/// Refuses if the budget does.
fn check(budget: &Value) -> Result<(), Status> {
    let name = meta_text(budget, "name");
    let status = &budget["status"];
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let refuse = |message: String| {
        Err(Status::too_many_requests(VIOLATES, 10).with_causes(vec![StatusCause {
            reason: "DisruptionBudget".to_owned(),
            message,
            field: String::new(),
        }]))
    };
    if number(&status["observedGeneration"]) < number(&budget["metadata"]["generation"]) {
        return refuse(format!(
            "The disruption budget {name} is still being processed by the server."
        ));
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MOST_DISRUPTED) {
        let resource = meta::GroupResource::new("policy", "poddisruptionbudget");
        return Err(Status::forbidden(
            &resource,
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if number(&status["disruptionsAllowed"]) <= 0 {
        return refuse(format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number(&status["desiredHealthy"]),
            number(&status["currentHealthy"])
        ));
    }
    Ok(())
}
