//! Fields of kinds without rules of their own that hold one of a few words, or a list of them.

/// The words a field of a type may hold, by the type's short name.
pub(super) fn of(owner: &str, field: &str) -> Option<&'static [&'static str]> {
    Some(match (owner, field) {
        ("CronJobSpec", "concurrencyPolicy") => &["Allow", "Forbid", "Replace"],
        ("JobSpec", "completionMode") => &["NonIndexed", "Indexed"],
        ("JobSpec", "podReplacementPolicy") => &["Failed", "TerminatingOrFailed"],
        ("HTTPIngressPath", "pathType") => &["Exact", "ImplementationSpecific", "Prefix"],
        ("IngressClassParametersReference", "scope") => &["Cluster", "Namespace"],
        ("NetworkPolicyPort", "protocol") => &["TCP", "UDP", "SCTP"],
        ("NetworkPolicySpec", "policyTypes") => &["Ingress", "Egress"],
        ("PersistentVolumeClaimSpec" | "PersistentVolumeSpec", "accessModes") => {
            &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]
        }
        ("PersistentVolumeClaimSpec" | "PersistentVolumeSpec", "volumeMode") => {
            &["Block", "Filesystem"]
        }
        ("PersistentVolumeSpec", "persistentVolumeReclaimPolicy") => {
            &["Delete", "Recycle", "Retain"]
        }
        ("StorageClass", "reclaimPolicy") => &["Delete", "Retain"],
        ("StorageClass", "volumeBindingMode") => &["Immediate", "WaitForFirstConsumer"],
        ("CSIDriverSpec", "fsGroupPolicy") => &["File", "None", "ReadWriteOnceWithFSType"],
        ("CSIDriverSpec", "volumeLifecycleModes") => &["Ephemeral", "Persistent"],
        ("LimitRangeItem", "type") => &["Container", "PersistentVolumeClaim", "Pod"],
        ("PodDisruptionBudgetSpec", "unhealthyPodEvictionPolicy") => {
            &["AlwaysAllow", "IfHealthyBudget"]
        }
        ("MetricSpec", "type") => &["ContainerResource", "External", "Object", "Pods", "Resource"],
        ("MetricTarget", "type") => &["AverageValue", "Utilization", "Value"],
        ("HPAScalingRules", "selectPolicy") => &["Disabled", "Max", "Min"],
        ("HPAScalingPolicy", "type") => &["Percent", "Pods"],
        ("ValidatingWebhook" | "MutatingWebhook", "sideEffects") => &["None", "NoneOnDryRun"],
        ("MutatingWebhook", "reinvocationPolicy") => &["IfNeeded", "Never"],
        (
            "ValidatingWebhook"
            | "MutatingWebhook"
            | "ValidatingAdmissionPolicySpec"
            | "MutatingAdmissionPolicySpec",
            "failurePolicy",
        ) => &["Fail", "Ignore"],
        ("ValidatingWebhook" | "MutatingWebhook" | "MatchResources", "matchPolicy") => {
            &["Equivalent", "Exact"]
        }
        ("RuleWithOperations" | "NamedRuleWithOperations", "scope") => {
            &["*", "Cluster", "Namespaced"]
        }
        ("RuleWithOperations" | "NamedRuleWithOperations", "operations") => {
            &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]
        }
        ("ValidatingAdmissionPolicyBindingSpec", "validationActions") => &["Audit", "Deny", "Warn"],
        ("CustomResourceDefinitionSpec", "scope") => &["Cluster", "Namespaced"],
        ("PriorityLevelConfigurationSpec", "type") => &["Exempt", "Limited"],
        ("LimitResponse", "type") => &["Queue", "Reject"],
        ("FlowDistinguisherMethod", "type") => &["ByNamespace", "ByUser"],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::types;

    /// A misspelt row would check nothing.
    #[test]
    fn every_row_names_a_field() {
        let text = include_str!("enums.rs");
        let table = text.split("#[cfg(test)]").next().expect("the table");
        for quoted in table.split("(\"").skip(1) {
            let owner = quoted.split('"').next().expect("a name");
            assert!(types::all().iter().any(|of| of.short_name() == owner), "{owner}");
        }
        let checked = types::all()
            .iter()
            .flat_map(|of| {
                of.fields.iter().filter(|field| super::of(of.short_name(), field.name).is_some())
            })
            .count();
        assert!(checked >= 40, "{checked}");
    }
}
