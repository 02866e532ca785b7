//! What an old pod has that a new one may not, and what a changed one may therefore keep.

use meta::names;
use serde_json::Value;

use super::{affinity, annotations, resources, security};
use crate::rules::at::{At, Errors};
use crate::rules::{selector, volume};
use crate::view::View;

/// How strictly a pod is looked at. The default is that of new templates.
#[derive(Clone, Copy, Default)]
pub(in crate::rules) struct Tolerated {
    /// It is a pod and no template.
    pub(super) pod: bool,
    /// A deletion cost that is no number.
    pub(super) deletion_cost: bool,
    /// Amounts of huge pages that are no whole pages.
    pub(super) parts_of_pages: bool,
    /// Values in selectors of pod affinity that are none of labels.
    pub(super) pod_affinity_values: bool,
    /// Values in required node affinity that are none of labels.
    pub(super) node_affinity_values: bool,
    /// Bad selectors in topology spread constraints.
    pub(super) spread_selectors: bool,
    /// Bad label keys in topology spread constraints: the rules of former versions hold.
    pub(super) spread_keys: bool,
    /// Tokens at paths that are reserved.
    pub(super) token_paths: bool,
    /// Sysctls of a namespace that the pod shares with its host.
    pub(super) host_sysctls: bool,
    /// Init containers that a resize would restart.
    pub(super) restarted_init: bool,
    /// A user namespace beside the host's network.
    pub(super) users_on_host_network: bool,
    /// A user namespace beside block devices.
    pub(super) users_with_devices: bool,
    /// Tolerations that compare numbers.
    pub(super) comparisons: bool,
}

impl Tolerated {
    /// What a new pod may do.
    pub(super) const POD: Self = Self {
        pod: true,
        deletion_cost: false,
        parts_of_pages: false,
        pod_affinity_values: false,
        node_affinity_values: false,
        spread_selectors: false,
        spread_keys: false,
        token_paths: false,
        host_sysctls: false,
        restarted_init: false,
        users_on_host_network: false,
        users_with_devices: false,
        comparisons: false,
    };

    /// What a pod's annotations may keep.
    pub(super) fn of_annotations(old: &Value) -> Self {
        let deletion_cost = annotations::bad_deletion_cost(old.at("metadata").at("annotations"));
        Self { deletion_cost, comparisons: true, ..Self::POD }
    }

    /// What an update of a pod or template may keep.
    pub(in crate::rules) fn of(old: &Value, pod: bool) -> Self {
        let at = At::root(old).field("spec");
        let spec = at.value;
        let says = |check: &dyn Fn(&mut Errors)| {
            let mut errors = Errors::new();
            check(&mut errors);
            !errors.is_empty()
        };
        let containers = || containers(spec);
        let own_users = spec.at("hostUsers").as_bool() == Some(false);
        let spread = spec.items("topologySpreadConstraints");
        Self {
            pod,
            deletion_cost: annotations::bad_deletion_cost(old.at("metadata").at("annotations")),
            parts_of_pages: resources::has_parts_of_pages(spec),
            pod_affinity_values: affinity::has_bad_pod_values(spec),
            node_affinity_values: affinity::has_bad_node_values(spec),
            spread_selectors: !spread.is_empty()
                && says(&|errors| {
                    for constraint in at.each("topologySpreadConstraints") {
                        selector::label_selector(&constraint.field("labelSelector"), errors);
                    }
                }),
            spread_keys: !spread.is_empty()
                && says(&|errors| {
                    for constraint in at.each("topologySpreadConstraints") {
                        affinity::label_keys(&constraint, errors);
                    }
                }),
            token_paths: volume::has_reserved_token_path(spec),
            host_sysctls: says(&|errors| security::host_sysctls(&at, errors)),
            restarted_init: spec.items("initContainers").iter().any(|container| {
                container.text("restartPolicy") != "Always"
                    && container
                        .items("resizePolicy")
                        .iter()
                        .any(|policy| policy.text("restartPolicy") == "RestartContainer")
            }),
            users_on_host_network: own_users && spec.flag("hostNetwork"),
            users_with_devices: own_users
                && containers().any(|container| !container.items("volumeDevices").is_empty()),
            comparisons: spec
                .items("tolerations")
                .iter()
                .any(|toleration| matches!(toleration.text("operator"), "Lt" | "Gt")),
        }
    }
}

/// The containers of every sort.
pub(super) fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    LISTS.iter().flat_map(|list| spec.items(list))
}

/// The lists of containers, in the order in which upstream visits them.
pub(in crate::rules) const LISTS: [&str; 3] =
    ["initContainers", "containers", "ephemeralContainers"];

/// Whether a list of texts holds one that is no value of a label.
pub(super) fn has_bad_label_value(values: &[Value]) -> bool {
    values.iter().any(|value| !names::is_label_value(value.as_str().unwrap_or_default()).is_empty())
}
