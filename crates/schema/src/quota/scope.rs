//! The scopes of quotas: which objects a quota is about at all.

use serde_json::Value;

use crate::amounts::qos_of;
use crate::view::View;

/// One requirement on objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) name: String,
    operator: String,
    values: Vec<String>,
}

impl Scope {
    pub(super) fn read(value: &Value) -> Self {
        let values = value.items("values").iter().filter_map(Value::as_str);
        Self {
            name: value.text("scopeName").to_owned(),
            operator: value.text("operator").to_owned(),
            values: values.map(str::to_owned).collect(),
        }
    }

    /// As messages print it.
    pub(super) fn told(&self) -> String {
        format!("{{{} {} [{}]}}", self.name, self.operator, self.values.join(" "))
    }

    /// Whether what an object says, if anything, is what is asked for.
    fn accepts(&self, value: Option<&str>) -> bool {
        let listed = || value.is_some_and(|value| self.values.iter().any(|one| one == value));
        match self.operator.as_str() {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }
}

/// All scopes of a quota.
pub(super) fn of_quota(quota: &Value) -> Vec<Scope> {
    let spec = quota.at("spec");
    let plain = spec.items("scopes").iter().filter_map(Value::as_str).map(|name| Scope {
        name: name.to_owned(),
        operator: "Exists".to_owned(),
        values: Vec::new(),
    });
    plain
        .chain(spec.at("scopeSelector").items("matchExpressions").iter().map(Scope::read))
        .collect()
}

pub(super) fn holds_pod(scope: &Scope, pod: &Value) -> bool {
    match scope.name.as_str() {
        "Terminating" => has_deadline(pod),
        "NotTerminating" => !has_deadline(pod),
        "BestEffort" => qos_of(pod) == "BestEffort",
        "NotBestEffort" => qos_of(pod) != "BestEffort",
        "PriorityClass" => {
            let class = Some(pod.at("spec").text("priorityClassName"));
            scope.accepts(class.filter(|class| !class.is_empty()))
        }
        "CrossNamespacePodAffinity" => reaches_other_namespaces(pod),
        _ => false,
    }
}

pub(super) fn holds_claim(scope: &Scope, claim: &Value) -> bool {
    if scope.name != "VolumeAttributesClass" {
        return false;
    }
    let status = claim.at("status");
    let classes = [
        claim.at("spec").text("volumeAttributesClassName"),
        status.text("currentVolumeAttributesClassName"),
        status.at("modifyVolumeStatus").text("targetVolumeAttributesClassName"),
    ];
    let mut classes = classes.into_iter().filter(|class| !class.is_empty()).peekable();
    if classes.peek().is_none() {
        return scope.accepts(None);
    }
    classes.any(|class| scope.accepts(Some(class)))
}

/// Whether a pod must end by itself.
pub(super) fn has_deadline(pod: &Value) -> bool {
    pod.at("spec").int("activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0)
}

fn reaches_other_namespaces(pod: &Value) -> bool {
    let affinity = pod.at("spec").at("affinity");
    ["podAffinity", "podAntiAffinity"].iter().map(|kind| affinity.at(kind)).any(|kind| {
        let required = kind.items("requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = kind.items("preferredDuringSchedulingIgnoredDuringExecution").iter();
        let mut terms = required.chain(preferred.map(|term| term.at("podAffinityTerm")));
        terms.any(|term| !term.items("namespaces").is_empty() || term.has("namespaceSelector"))
    })
}
