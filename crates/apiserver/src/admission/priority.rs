//! Priority: the number and preemption policy of a pod follow from its priority class, and at most one class is
//! the default.

use meta::Status;
use registry::{Admit, Attributes, Operation, Row};
use serde_json::{Value, json};

use super::{Admitted, child, decided, fine, forbid, is_core, read, read_all, text};

const GROUP: &str = "scheduling.k8s.io";

/// The plugin.
pub(super) struct Priority;

impl Admit for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, operation: Operation, row: &Row, subresource: Option<&str>) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && subresource.is_none()
            && (is_core(row, "pods") || is_class(row))
    }

    fn mutate<'a>(&'a self, attributes: &'a Attributes<'a>, object: &'a mut Value) -> Admitted<'a> {
        if is_class(attributes.row) { fine() } else { decided(pod(attributes, object)) }
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> Admitted<'a> {
        match object {
            Some(class) if is_class(attributes.row) => decided(only_default(attributes, class)),
            _ => fine(),
        }
    }
}

fn is_class(row: &Row) -> bool {
    row.resource.group == GROUP && row.resource.resource == "priorityclasses"
}

fn pod(attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
    if let Some(old) = attributes.old {
        // The class was resolved when the pod was made; only the number may have been left out since.
        for field in ["priority", "preemptionPolicy"] {
            if pod["spec"][field].is_null() && !old["spec"][field].is_null() {
                child(pod, "spec")[field] = old["spec"][field].clone();
            }
        }
        return Ok(());
    }
    let wanted = text(&pod["spec"], "priorityClassName").to_owned();
    let class = if wanted.is_empty() {
        default_class(&read_all(attributes, GROUP, "priorityclasses", None))
    } else {
        let why = || format!("no PriorityClass with name {wanted} was found");
        let class = read(attributes, GROUP, "priorityclasses", None, &wanted);
        Some(class.ok_or_else(|| forbid(attributes, Some(pod), why()))?)
    };
    let (name, number, policy) = match &class {
        None => ("", 0, "PreemptLowerPriority"),
        Some(class) => {
            let policy = class["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority");
            (text(&class["metadata"], "name"), class["value"].as_i64().unwrap_or(0), policy)
        }
    };
    if let Some(given) = pod["spec"]["priority"].as_i64()
        && given != number
    {
        return Err(forbid(
            attributes,
            Some(pod),
            format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {number} from the given PriorityClass name"
            ),
        ));
    }
    if let Some(given) = pod["spec"]["preemptionPolicy"].as_str()
        && given != policy
    {
        return Err(forbid(
            attributes,
            Some(pod),
            format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
            ),
        ));
    }
    let spec = child(pod, "spec");
    if !name.is_empty() {
        spec["priorityClassName"] = name.into();
    }
    spec["priority"] = json!(number);
    spec["preemptionPolicy"] = policy.into();
    Ok(())
}

/// The class of pods that name none: of several that claim to be it, the lowest.
fn default_class(classes: &[Value]) -> Option<Value> {
    let defaults = classes.iter().filter(|class| class["globalDefault"] == true);
    defaults.min_by_key(|class| class["value"].as_i64().unwrap_or(0)).cloned()
}

fn only_default(attributes: &Attributes<'_>, class: &Value) -> Result<(), Status> {
    if class["globalDefault"] != true {
        return Ok(());
    }
    let name = text(&class["metadata"], "name");
    let other = read_all(attributes, GROUP, "priorityclasses", None)
        .into_iter()
        .find(|other| other["globalDefault"] == true && text(&other["metadata"], "name") != name);
    match other {
        None => Ok(()),
        Some(other) => Err(forbid(
            attributes,
            Some(class),
            format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                text(&other["metadata"], "name")
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_of_several_defaults_wins() {
        let classes = [
            json!({"metadata": {"name": "a"}, "value": 7, "globalDefault": true}),
            json!({"metadata": {"name": "b"}, "value": 3, "globalDefault": true}),
            json!({"metadata": {"name": "c"}, "value": 1}),
        ];
        assert_eq!(default_class(&classes).expect("a default")["metadata"]["name"], "b");
        assert!(default_class(&classes[2..]).is_none());
    }
}
