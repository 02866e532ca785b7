//! LimitRanger: requests and limits a namespace gives to containers that say none, and the bounds it sets.

use std::cmp::Ordering;

use meta::{Quantity, Status};
use registry::{Admit, Attributes, Operation, Row};
use serde_json::{Map, Value, json};

use super::{Admitted, child, decided, each, fine, forbid, is_core, read_all, text};

/// What was set is noted here, as upstream does.
const NOTE: &str = "kubernetes.io/limit-ranger";

/// The plugin.
pub(super) struct LimitRanger;

impl Admit for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        operation == Operation::Create
            && subresource.is_none()
            && (is_core(row, "pods") || is_core(row, "persistentvolumeclaims"))
    }

    fn mutate<'a>(&'a self, attributes: &'a Attributes<'a>, object: &'a mut Value) -> Admitted<'a> {
        if !is_core(attributes.row, "pods") {
            return fine();
        }
        for range in read_all(attributes, "", "limitranges", attributes.namespace) {
            complete(object, &range);
        }
        fine()
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> Admitted<'a> {
        let Some(object) = object else { return fine() };
        decided(check(attributes, object))
    }
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
            for (name, amount) in limit[field].as_object().into_iter().flatten() {
                into.insert(name.clone(), amount.clone());
            }
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
    set
}

fn amount(resources: &Value, part: &str, name: &str) -> Option<Quantity> {
    quantity(&resources[part][name])
}

fn quantity(value: &Value) -> Option<Quantity> {
    value.as_str().and_then(|text| text.parse().ok())
}

/// What a pod asks for that the range does not allow.
fn pod(pod: &Value, range: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for limit in each(&range["spec"], "limits") {
        match text(limit, "type") {
            "Container" => {
                for field in ["containers", "initContainers"] {
                    for container in each(&pod["spec"], field) {
                        bounds(limit, "Container", &container["resources"], &mut errors);
                    }
                }
            }
            "Pod" => bounds(limit, "Pod", &total(&pod["spec"]), &mut errors),
            _ => {}
        }
    }
    errors
}

fn claim(claim: &Value, range: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for limit in each(&range["spec"], "limits")
        .filter(|limit| text(limit, "type") == "PersistentVolumeClaim")
    {
        let requests = &claim["spec"]["resources"]["requests"];
        // A claim's request is all there is of it.
        let resources = json!({"requests": requests, "limits": requests});
        bounds(limit, "PersistentVolumeClaim", &resources, &mut errors);
    }
    errors
}

/// What the containers of a pod ask for together: the sum of the ordinary ones, or the largest init container.
fn total(spec: &Value) -> Value {
    let mut total = json!({"requests": {}, "limits": {}});
    for (field, sum) in [("containers", true), ("initContainers", false)] {
        for container in each(spec, field) {
            for part in ["requests", "limits"] {
                for (name, value) in container["resources"][part].as_object().into_iter().flatten()
                {
                    let Some(new) = quantity(value) else { continue };
                    let merged = match amount(&total, part, name) {
                        Some(old) if sum => old + new,
                        Some(old) if old >= new => old,
                        _ => new,
                    };
                    total[part][name] = merged.to_string().into();
                }
            }
        }
    }
    total
}

fn bounds(limit: &Value, what: &str, resources: &Value, errors: &mut Vec<String>) {
    let each_of = |field: &str| -> Vec<(String, Quantity)> {
        let entries = limit[field].as_object().into_iter().flatten();
        entries.filter_map(|(name, value)| Some((name.clone(), quantity(value)?))).collect()
    };
    for (name, least) in each_of("min") {
        let (request, given) =
            (amount(resources, "requests", &name), amount(resources, "limits", &name));
        match (request, given) {
            (None, _) => errors.push(format!(
                "minimum {name} usage per {what} is {least}.  No request is specified"
            )),
            (Some(request), _) if request < least => {
                errors.push(format!(
                    "minimum {name} usage per {what} is {least}, but request is {request}"
                ));
            }
            (_, Some(given)) if given < least => {
                errors.push(format!(
                    "minimum {name} usage per {what} is {least}, but limit is {given}"
                ));
            }
            _ => {}
        }
    }
    for (name, most) in each_of("max") {
        let (request, given) =
            (amount(resources, "requests", &name), amount(resources, "limits", &name));
        match (given, request) {
            (None, _) => errors
                .push(format!("maximum {name} usage per {what} is {most}.  No limit is specified")),
            (Some(given), _) if given > most => {
                errors.push(format!(
                    "maximum {name} usage per {what} is {most}, but limit is {given}"
                ));
            }
            (_, Some(request)) if request > most => {
                errors.push(format!(
                    "maximum {name} usage per {what} is {most}, but request is {request}"
                ));
            }
            _ => {}
        }
    }
    for (name, most) in each_of("maxLimitRequestRatio") {
        let (request, given) =
            (amount(resources, "requests", &name), amount(resources, "limits", &name));
        let (Some(request), Some(given)) = (request, given) else {
            errors.push(format!(
                "{name} max limit to request ratio per {what} is {most}, but no request is specified or request is 0"
            ));
            continue;
        };
        if request.is_zero() || ratio(given, request, most) == Ordering::Greater {
            let actual = given.approximate() / request.approximate();
            errors.push(format!(
                "{name} max limit to request ratio per {what} is {most}, but provided ratio is {actual:.6}"
            ));
        }
    }
}

/// How `given / request` compares with `most`, without division.
fn ratio(given: Quantity, request: Quantity, most: Quantity) -> Ordering {
    let product = request.approximate() * most.approximate();
    given.approximate().total_cmp(&product)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> Value {
        json!({"spec": {"limits": [
            {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"},
             "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "5"}},
            {"type": "Pod", "max": {"memory": "1Gi"}}]}})
    }

    #[test]
    fn defaults_fill_only_gaps() {
        let mut pod = json!({"spec": {"containers": [
            {"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "2"}}}]}});
        complete(&mut pod, &range());
        let containers = &pod["spec"]["containers"];
        assert_eq!(
            containers[0]["resources"],
            json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}})
        );
        assert_eq!(containers[1]["resources"]["limits"]["cpu"], "2");
        assert_eq!(
            pod["metadata"]["annotations"][NOTE],
            "LimitRanger plugin set: cpu request for container a; cpu limit for container a"
        );
    }

    #[test]
    fn bounds_are_told_in_kubernetes_words() {
        let container = |cpu: &str, memory: &str| {
            json!({"name": "a", "resources": {
                "limits": {"cpu": cpu, "memory": memory}, "requests": {"cpu": "500m", "memory": memory}}})
        };
        let pod = |containers: Vec<Value>| json!({"spec": {"containers": containers}});
        assert!(super::pod(&pod(vec![container("1", "1Gi")]), &range()).is_empty());
        assert_eq!(
            super::pod(&pod(vec![container("2", "600Mi"), container("1", "600Mi")]), &range()),
            [
                "maximum cpu usage per Container is 1, but limit is 2",
                "maximum memory usage per Pod is 1Gi, but limit is 1200Mi"
            ]
        );
    }
}
