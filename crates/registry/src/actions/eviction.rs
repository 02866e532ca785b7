//! Eviction: a deletion of a pod that its disruption budget has to allow.

use std::sync::Arc;

use meta::{
    GroupResource, GroupVersionKind, Selector, Status, StatusCause, conditions,
    conditions::Condition, time,
};
use serde_json::Value;
use store::Expect;

use super::begin;
use crate::delete::{Options, delete_named};
use crate::object::{Object, child, encode, meta_text};
use crate::outcome::Answer;
use crate::pipeline::{Context, Failure, commit, success};
use crate::read;
use crate::registry::Registry;
use crate::request::Request;

/// A budget that counts more disrupted pods than this is not kept up to date by anybody.
const MOST_DISRUPTED: usize = 2000;
/// How often a contended budget or pod is tried.
const MOST_TRIES: usize = 20;
/// How long clients shall wait for a budget that is behind, in seconds.
const LATER: u32 = 10;

/// POST of `pods/<name>/eviction`.
pub(super) async fn execute(
    engine: &Arc<Registry>,
    request: &Request,
    kind: &GroupVersionKind,
) -> Answer {
    let (context, eviction) = begin(engine, request, kind, "eviction").await?;
    let mut options = Options::of(&eviction["deleteOptions"])?;
    options.dry_run |= request.params.dry_run;
    let read = Request { subresource: None, params: crate::Params::default(), ..request.clone() };
    let eviction = Eviction {
        of_pod: Context::new(engine, &read)?,
        context,
        read: &read,
        asked: options.resource_version.clone(),
    };
    for _ in 0..MOST_TRIES {
        let pod = read::find(engine, &read).await?;
        let value = pod.value(&request.row);
        if !is_free(&value) {
            return eviction.ask_and_evict(&pod, &value, options).await;
        }
        // A pod that waits may have started since, and then the budget counts it.
        let mut options = options.clone();
        if may_start(&value) {
            options.resource_version.get_or_insert_with(|| pod.revision().to_string());
        }
        match eviction.evict(options).await {
            Err(status) if status.code == 409 && eviction.asked.is_none() => {}
            done => return done,
        }
    }
    Err(Status::modified(&eviction.context.resource(), eviction.context.name()?))
}

/// An eviction under way.
struct Eviction<'a> {
    context: Context<'a>,
    of_pod: Context<'a>,
    /// Reads the pod.
    read: &'a Request,
    /// The version that the client wants to evict, if it said one.
    asked: Option<String>,
}

impl Eviction<'_> {
    /// Says why the pod goes, and deletes it.
    async fn evict(&self, mut options: Options) -> Answer {
        if !options.dry_run {
            announce(&self.of_pod, self.read, &mut options).await?;
        }
        delete_named(&self.context, self.context.name()?, &options).await?;
        Ok(success(&self.context, 201, Value::Null))
    }

    /// Evicts a pod that its budget counts.
    async fn ask_and_evict(&self, pod: &Object, value: &Value, mut options: Options) -> Answer {
        let verdict = ask_budget(&self.context, value, options.dry_run).await?;
        // What the budget allowed is this very pod.
        options.uid.get_or_insert_with(|| meta_text(value, "uid").to_owned());
        if let Verdict::WhileUnready(_) = verdict {
            options.resource_version.get_or_insert_with(|| pod.revision().to_string());
        }
        match (self.evict(options).await, verdict) {
            // It may have become ready since, and then the budget counts it.
            (Err(status), Verdict::WhileUnready(budget))
                if status.code == 409 && self.asked.is_none() =>
            {
                Err(behind(&budget))
            }
            (done, _) => done,
        }
    }
}

/// Whether a pod serves nobody, so that no budget counts it.
fn is_free(pod: &Value) -> bool {
    may_start(pod) || is_over(pod)
}

/// Whether a pod waits to serve somebody.
fn may_start(pod: &Value) -> bool {
    matches!(phase(pod), "" | "Pending") && !is_over(pod)
}

/// Whether a pod will never serve anybody again.
fn is_over(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null() || matches!(phase(pod), "Succeeded" | "Failed")
}

fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}

fn is_ready(pod: &Value) -> bool {
    let list = pod["status"]["conditions"].as_array();
    list.is_some_and(|list| conditions::is(list, "Ready", "True"))
}

/// Says in the pod's conditions why it goes (KEP-3329). A precondition of the deletion that names
/// a version holds here, and then for what this writes.
async fn announce(
    context: &Context<'_>,
    read: &Request,
    options: &mut Options,
) -> Result<(), Status> {
    for _ in 0..MOST_TRIES {
        let pod = read::find(context.engine, read).await?;
        let mut value = pod.value(&context.stored);
        let differs = |asked: &Option<String>, field| {
            asked.as_deref().is_some_and(|asked| asked != meta_text(&value, field))
        };
        if differs(&options.uid, "uid") || differs(&options.resource_version, "resourceVersion") {
            // The deletion itself says so, in the words it has for it.
            return Ok(());
        }
        let wanted = Condition {
            kind: "DisruptionTarget",
            status: "True",
            reason: "EvictionByEvictionAPI",
            message: "Eviction API: evicting",
        };
        let status = child(&mut value, "status");
        let list = status.entry("conditions").or_insert_with(|| Value::Array(Vec::new()));
        let Value::Array(list) = list else { return Ok(()) };
        if !conditions::set(list, &wanted, context.now) {
            return Ok(());
        }
        let bytes = encode(&value);
        match commit(context, pod.key(), Expect::Modified(pod.revision()), &value, bytes).await {
            Ok(record) => {
                if options.resource_version.is_some() {
                    options.resource_version = Some(record.modified.to_string());
                }
                return Ok(());
            }
            Err(Failure::Conflict) => {}
            Err(Failure::Refused(status)) => return Err(status),
        }
    }
    Err(Status::modified(&context.resource(), context.name()?))
}

/// What a budget says.
enum Verdict {
    /// There is none, or it counted the pod.
    Go,
    /// The pod may go uncounted, by this budget, for as long as it is not ready.
    WhileUnready(String),
}

/// Counts the eviction against the pod's budget, if it has one.
async fn ask_budget(context: &Context<'_>, pod: &Value, dry_run: bool) -> Result<Verdict, Status> {
    let mut name = String::new();
    for _ in 0..MOST_TRIES {
        let Some((request, budget)) = budget_of(context, pod)? else { return Ok(Verdict::Go) };
        let of_budget = Context::new(context.engine, &request)?;
        let mut object = budget.value(&of_budget.stored);
        name = meta_text(&object, "name").to_owned();
        if !is_ready(pod) && unready_may_go(&object) {
            return Ok(Verdict::WhileUnready(name));
        }
        check(&object)?;
        if dry_run {
            return Ok(Verdict::Go);
        }
        take_one(&mut object, meta_text(pod, "name"), context.now);
        let expect = Expect::Modified(budget.revision());
        let bytes = encode(&object);
        match commit(&of_budget, budget.key(), expect, &object, bytes).await {
            Ok(_) => return Ok(Verdict::Go),
            Err(Failure::Conflict) => {}
            Err(Failure::Refused(status)) => return Err(status),
        }
    }
    let message = format!("couldn't update PodDisruptionBudget {name:?} due to conflicts");
    Err(Status::timeout(message, LATER))
}

/// Counts one disruption; the pod's name tells the budget's controller which.
fn take_one(budget: &mut Value, pod: &str, now: jiff::Timestamp) {
    let generation = budget["metadata"]["generation"].clone();
    let status = child(budget, "status");
    let left = status.get("disruptionsAllowed").and_then(Value::as_i64).unwrap_or(0) - 1;
    status.insert("disruptionsAllowed".to_owned(), left.into());
    if left == 0
        && let Value::Array(list) =
            status.entry("conditions").or_insert_with(|| Value::Array(Vec::new()))
    {
        let wanted = Condition {
            kind: "DisruptionAllowed",
            status: "False",
            reason: "InsufficientPods",
            message: "",
        };
        conditions::set(list, &wanted, now);
        for one in list.iter_mut().filter(|one| one["type"] == "DisruptionAllowed") {
            one["message"] = "".into();
            one["observedGeneration"] = generation.clone();
        }
    }
    let disrupted =
        status.entry("disruptedPods").or_insert_with(|| Value::Object(serde_json::Map::new()));
    if let Value::Object(disrupted) = disrupted {
        disrupted.insert(pod.to_owned(), Value::from(time::seconds(now)));
    }
}

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
        let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Status::new(500, "", text));
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

/// 429 with what the budget has to say.
fn violates(retry_after: u32, message: String) -> Status {
    let text = "Cannot evict pod as it would violate the pod's disruption budget.";
    Status::too_many_requests(text, retry_after).with_causes(vec![StatusCause {
        reason: "DisruptionBudget".to_owned(),
        message,
        field: String::new(),
    }])
}

fn behind(name: &str) -> Status {
    violates(LATER, format!("The disruption budget {name} is still being processed by the server."))
}

/// Refuses if the budget does.
fn check(budget: &Value) -> Result<(), Status> {
    let name = meta_text(budget, "name");
    let status = &budget["status"];
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let resource = GroupResource::new("policy", "poddisruptionbudget");
    let allowed = number(&status["disruptionsAllowed"]);
    if number(&status["observedGeneration"]) < number(&budget["metadata"]["generation"]) {
        return Err(behind(name));
    }
    if allowed < 0 {
        return Err(Status::forbidden(&resource, name, "pdb disruptions allowed is negative"));
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MOST_DISRUPTED) {
        return Err(Status::forbidden(
            &resource,
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed > 0 {
        return Ok(());
    }
    let list = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let condition = conditions::find(list, "DisruptionAllowed");
    Err(match condition.filter(|one| one["reason"] == "SyncFailed") {
        Some(failed) => violates(
            0,
            format!(
                "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
                failed["message"].as_str().unwrap_or_default()
            ),
        ),
        None => violates(
            0,
            format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                number(&status["desiredHealthy"]),
                number(&status["currentHealthy"])
            ),
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn budgets_refuse_in_upstreams_words() {
        let told = |status: Value| {
            let budget = json!({"metadata": {"name": "web", "generation": 2}, "status": status});
            check(&budget).err().map(|status| (status.code, status.to_json()))
        };
        let text = |status: Value| {
            let (code, json) = told(status).expect("refused");
            (code, String::from_utf8(json).expect("text"))
        };
        assert!(told(json!({"observedGeneration": 2, "disruptionsAllowed": 1})).is_none());
        let (code, old) = text(json!({"observedGeneration": 1, "disruptionsAllowed": 1}));
        assert!(code == 429 && old.contains("is still being processed by the server."), "{old}");
        let numbers = json!({"observedGeneration": 2, "desiredHealthy": 3, "currentHealthy": 2});
        let (code, few) = text(numbers);
        let wanted = "The disruption budget web needs 3 healthy pods and has 2 currently";
        assert!(code == 429 && few.contains(wanted) && few.contains("DisruptionBudget"), "{few}");
        let negative = json!({"observedGeneration": 2, "disruptionsAllowed": -1});
        assert_eq!(text(negative).0, 403);
        let (_, failed) = text(json!({"observedGeneration": 2, "conditions": [
            {"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "why"}]}));
        assert!(failed.contains("because it failed sync: why"), "{failed}");
    }

    #[test]
    fn the_last_disruption_closes_the_budget() {
        let now = time::parse("2026-01-01T00:00:00Z").expect("a time");
        let mut budget = json!({"metadata": {"generation": 4}, "status": {"disruptionsAllowed": 2,
            "conditions": [{"type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods"}]}});
        take_one(&mut budget, "a", now);
        assert_eq!(budget["status"]["conditions"][0]["status"], "True");
        take_one(&mut budget, "b", now);
        assert_eq!(budget["status"]["disruptionsAllowed"], 0);
        assert_eq!(budget["status"]["conditions"][0]["reason"], "InsufficientPods");
        assert_eq!(budget["status"]["conditions"][0]["observedGeneration"], 4);
        let both = json!({"a": "2026-01-01T00:00:00Z", "b": "2026-01-01T00:00:00Z"});
        assert_eq!(budget["status"]["disruptedPods"], both);
    }
}
