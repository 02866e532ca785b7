//! LimitRanger: requests and limits a namespace gives to containers that say none, and the bounds it sets.

use std::cmp::Ordering;

use meta::{Quantity, Status};
use registry::{Admit, Attributes, Operation, Row};
use schema::amounts::{Amounts, Count, amounts, of_pod};
use schema::view::View;
use serde_json::{Map, Value};

use super::{Admitted, child, decided, each, fine, forbid, is_core, read_all, text};

/// What was set is noted here, as upstream does.
const NOTE: &str = "kubernetes.io/limit-ranger";
/// Quantities up to this many whole units are compared by thousandths.
const FINE: i64 = i64::MAX / 1000;

/// The plugin.
pub(super) struct LimitRanger;

impl Admit for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        match (operation, subresource) {
            (Operation::Create, None) => {
                is_core(row, "pods") || is_core(row, "persistentvolumeclaims")
            }
            (Operation::Update, None) => is_core(row, "persistentvolumeclaims"),
            (Operation::Update, Some("resize")) => is_core(row, "pods"),
            _ => false,
        }
    }

    fn mutate<'a>(&'a self, attributes: &'a Attributes<'a>, object: &'a mut Value) -> Admitted<'a> {
        if is_core(attributes.row, "pods") && !is_going(attributes) {
            for range in read_all(attributes, "", "limitranges", attributes.namespace) {
                complete(object, &range);
            }
        }
        fine()
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> Admitted<'a> {
        match object {
            Some(object) if !is_going(attributes) => decided(check(attributes, object)),
            _ => fine(),
        }
    }
}

fn is_going(attributes: &Attributes<'_>) -> bool {
    attributes.old.is_some_and(|old| !old["metadata"]["deletionTimestamp"].is_null())
}

fn check(attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
    for range in read_all(attributes, "", "limitranges", attributes.namespace) {
        let errors = if is_core(attributes.row, "pods") {
            pod(object, &range)
        } else {
            claim(object, &range)
        };
        match errors.as_slice() {
            [] => {}
            [only] => return Err(forbid(attributes, Some(object), only)),
            several => {
                return Err(forbid(attributes, Some(object), format!("[{}]", several.join(", "))));
            }
        }
    }
    Ok(())
}

/// Sets what containers leave unsaid.
fn complete(pod: &mut Value, range: &Value) {
    let (mut requests, mut limits) = (Map::new(), Map::new());
    for limit in each(&range["spec"], "limits").filter(|limit| text(limit, "type") == "Container") {
        let take = |into: &mut Map<String, Value>, field: &str| {
            into.extend(limit.entries(field).clone());
        };
        take(&mut limits, "default");
        take(&mut requests, "defaultRequest");
    }
    let mut notes = Vec::new();
    for (field, what) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"][field].as_array_mut().into_iter().flatten() {
            let name = text(container, "name").to_owned();
            let resources = child(container, "resources");
            for (part, defaults) in [("requests", &requests), ("limits", &limits)] {
                let set = fill(resources, part, defaults);
                if !set.is_empty() {
                    let verb = if part == "requests" { "request" } else { "limit" };
                    notes.push(format!("{} {verb} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        child(child(pod, "metadata"), "annotations")[NOTE] = note.into();
    }
}

fn fill(resources: &mut Value, part: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in defaults {
        if resources[part][name].is_null() {
            child(resources, part)[name] = amount.clone();
            set.push(name.clone());
        }
    }
    set.sort_unstable();
    set
}

/// What of a namespace's limits something keeps to.
struct Asked {
    requests: Amounts,
    limits: Amounts,
}

/// What a pod asks for that the range does not allow.
fn pod(pod: &Value, range: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for limit in each(&range["spec"], "limits") {
        match text(limit, "type") {
            "Container" => {
                for field in ["containers", "initContainers"] {
                    for container in each(&pod["spec"], field) {
                        let of = |part| amounts(container["resources"].entries(part));
                        let asked = Asked { requests: of("requests"), limits: of("limits") };
                        bounds(limit, "Container", &asked, &mut errors);
                    }
                }
            }
            "Pod" => {
                let of = |part| of_pod(pod, part, Count::Written);
                let asked = Asked { requests: of("requests"), limits: of("limits") };
                bounds(limit, "Pod", &asked, &mut errors);
            }
            _ => {}
        }
    }
    errors
}

fn claim(claim: &Value, range: &Value) -> Vec<String> {
    const WHAT: &str = "PersistentVolumeClaim";
    let requests = amounts(claim["spec"]["resources"].entries("requests"));
    let mut errors = Vec::new();
    for limit in each(&range["spec"], "limits").filter(|limit| text(limit, "type") == WHAT) {
        // A claim's request is all there is of it.
        let of = |name: &str| [("request", requests.get(name)), ("limit", None)];
        for (name, least) in amounts(limit.entries("min")) {
            errors.extend(minimum(WHAT, &name, least, of(&name)));
        }
        for (name, most) in amounts(limit.entries("max")) {
            errors.extend(maximum(WHAT, &name, most, of(&name)));
        }
    }
    errors
}

fn bounds(limit: &Value, what: &str, asked: &Asked, errors: &mut Vec<String>) {
    let of = |name: &str| (asked.requests.get(name), asked.limits.get(name));
    for (name, least) in amounts(limit.entries("min")) {
        let (request, given) = of(&name);
        errors.extend(minimum(what, &name, least, [("request", request), ("limit", given)]));
    }
    for (name, most) in amounts(limit.entries("max")) {
        let (request, given) = of(&name);
        errors.extend(maximum(what, &name, most, [("limit", given), ("request", request)]));
    }
    for (name, most) in amounts(limit.entries("maxLimitRequestRatio")) {
        let (request, given) = of(&name);
        errors.extend(ratio(what, &name, most, request, given));
    }
}

fn minimum(what: &str, name: &str, least: Quantity, amounts: Two<'_>) -> Option<String> {
    let head = format!("minimum {name} usage per {what} is {least}");
    beyond(&head, Ordering::Less, least, amounts)
}

fn maximum(what: &str, name: &str, most: Quantity, amounts: Two<'_>) -> Option<String> {
    let head = format!("maximum {name} usage per {what} is {most}");
    beyond(&head, Ordering::Greater, most, amounts)
}

/// Amounts, as they are called.
type Two<'a> = [(&'static str, Option<&'a Quantity>); 2];

/// Which of the amounts is beyond a bound, in words. The first must be there.
fn beyond(head: &str, beyond: Ordering, bound: Quantity, amounts: Two<'_>) -> Option<String> {
    if let (what, None) = amounts[0] {
        return Some(format!("{head}.  No {what} is specified"));
    }
    amounts.into_iter().find_map(|(what, amount)| {
        let is_beyond = |amount: &&Quantity| comparable(**amount).cmp(&comparable(bound)) == beyond;
        Some(format!("{head}, but {what} is {}", amount.filter(is_beyond)?))
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "upstream compares ratios as floating-point numbers"
)]
fn ratio(
    what: &str,
    name: &str,
    most: Quantity,
    request: Option<&Quantity>,
    given: Option<&Quantity>,
) -> Option<String> {
    let head = format!("{name} max limit to request ratio per {what} is {most}");
    let some = |amount: Option<&Quantity>| amount.map(|a| comparable(*a)).filter(|a| *a != 0);
    let Some(request) = some(request) else {
        return Some(format!("{head}, but no request is specified or request is 0"));
    };
    let Some(given) = some(given) else {
        return Some(format!("{head}, but no limit is specified or limit is 0"));
    };
    let actual = given as f64 / request as f64;
    let exceeds = actual * 1000.0 > most.milli_value() as f64;
    exceeds.then(|| format!("{head}, but provided ratio is {actual:.6}"))
}

/// An amount in the precision in which upstream compares: thousandths of all but the largest.
fn comparable(amount: Quantity) -> i128 {
    if amount.value() <= FINE {
        i128::from(amount.milli_value())
    } else {
        i128::from(amount.value()) * 1000
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range() -> Value {
        json!({"spec": {"limits": [
            {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"},
             "min": {"cpu": "50m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "5"}},
            {"type": "Pod", "max": {"memory": "1Gi"}},
            {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "5Gi"}}]}})
    }

    #[test]
    fn defaults_fill_only_gaps() {
        let mut pod = json!({"spec": {
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a"},
                {"name": "b", "resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "2"}}}]}});
        complete(&mut pod, &range());
        let containers = &pod["spec"]["containers"];
        let set = json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}});
        assert_eq!(containers[0]["resources"], set);
        assert_eq!(pod["spec"]["initContainers"][0]["resources"], set);
        assert_eq!(containers[1]["resources"]["limits"]["cpu"], "2");
        assert_eq!(
            pod["metadata"]["annotations"][NOTE],
            "LimitRanger plugin set: cpu request for container a; cpu limit for container a; \
             cpu request for init container i; cpu limit for init container i"
        );
    }

    #[test]
    fn bounds_are_told_in_kubernetes_words() {
        let check = |resources: &[Value], expected: &[&str]| {
            let containers: Vec<Value> = resources
                .iter()
                .map(|resources| json!({"name": "a", "resources": resources}))
                .collect();
            assert_eq!(pod(&json!({"spec": {"containers": containers}}), &range()), expected);
        };
        let of = |request: &str, limit: &str, memory: &str| json!({"limits": {"cpu": limit, "memory": memory}, "requests": {"cpu": request, "memory": memory}});
        check(&[of("500m", "1", "1Gi")], &[]);
        check(
            &[of("500m", "2", "600Mi"), of("500m", "1", "600Mi")],
            &[
                "maximum cpu usage per Container is 1, but limit is 2",
                "maximum memory usage per Pod is 1Gi, but limit is 1200Mi",
            ],
        );
        check(
            &[of("10m", "40m", "1Gi")],
            &["minimum cpu usage per Container is 50m, but request is 10m"],
        );
        check(
            &[of("100m", "600m", "1Gi")],
            &["cpu max limit to request ratio per Container is 5, but provided ratio is 6.000000"],
        );
        check(
            &[json!({"limits": {"memory": "1Gi"}})],
            &[
                "minimum cpu usage per Container is 50m.  No request is specified",
                "maximum cpu usage per Container is 1.  No limit is specified",
                "cpu max limit to request ratio per Container is 5, but no request is specified or request is 0",
            ],
        );
    }

    #[test]
    fn claims_are_bound_by_what_they_request() {
        let told = |requests: Value| {
            claim(&json!({"spec": {"resources": {"requests": requests}}}), &range())
        };
        assert!(told(json!({"storage": "2Gi"})).is_empty());
        assert_eq!(
            told(json!({"storage": "6Gi"})),
            ["maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi"]
        );
        assert_eq!(
            told(json!({"storage": "1Mi"})),
            ["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"]
        );
        assert_eq!(
            told(json!({})),
            [
                "minimum storage usage per PersistentVolumeClaim is 1Gi.  No request is specified",
                "maximum storage usage per PersistentVolumeClaim is 5Gi.  No request is specified"
            ]
        );
    }
}
