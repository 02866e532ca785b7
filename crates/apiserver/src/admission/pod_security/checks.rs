//! The controls of the Pod Security Standards: which apply to a level in the form of a version.
//!
//! One table; what each control forbids is in [`super::controls`].

use serde_json::Value;

use super::controls as c;
use super::policy::{Level, LevelVersion, Version};

/// A pod, or a template of pods.
#[derive(Clone, Copy)]
pub(super) struct Pod<'a> {
    pub(super) metadata: &'a Value,
    pub(super) spec: &'a Value,
}

/// What a control has against a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) reason: String,
    pub(super) detail: String,
}

type Control = fn(Pod<'_>) -> Option<Violation>;

/// A control: its name, and what it is since which version. A control of the restricted level may take the place
/// of one of the baseline.
struct Check {
    name: &'static str,
    level: Level,
    replaces: &'static str,
    forms: &'static [(u64, Control)],
}

const fn baseline(name: &'static str, forms: &'static [(u64, Control)]) -> Check {
    Check { name, level: Level::Baseline, replaces: "", forms }
}

const fn restricted(
    name: &'static str,
    replaces: &'static str,
    forms: &'static [(u64, Control)],
) -> Check {
    Check { name, level: Level::Restricted, replaces, forms }
}

/// In the order in which violations are told.
const CHECKS: &[Check] = &[
    baseline("appArmorProfile", &[(0, c::app_armor)]),
    baseline("capabilities_baseline", &[(0, c::capabilities)]),
    baseline("hostNamespaces", &[(0, c::host_namespaces)]),
    baseline("hostPathVolumes", &[(0, c::host_paths)]),
    baseline("hostPorts", &[(0, c::host_ports)]),
    baseline("hostProbesAndHostLifecycle", &[(34, c::probe_hosts)]),
    baseline("privileged", &[(0, c::privileged)]),
    baseline(
        "procMount",
        &[(0, c::proc_mount), (35, |pod| c::unless_own_users(pod, c::proc_mount))],
    ),
    baseline(
        "seLinuxOptions",
        &[
            (0, |pod| c::se_linux(pod, &c::SE_TYPES[..4])),
            (31, |pod| c::se_linux(pod, c::SE_TYPES)),
        ],
    ),
    baseline("seccompProfile_baseline", &[(0, c::seccomp_annotations), (19, c::seccomp)]),
    baseline(
        "sysctls",
        &[
            (0, |pod| c::sysctls(pod, &c::SYSCTLS[..5])),
            (27, |pod| c::sysctls(pod, &c::SYSCTLS[..6])),
            (29, |pod| c::sysctls(pod, &c::SYSCTLS[..10])),
            (32, |pod| c::sysctls(pod, c::SYSCTLS)),
        ],
    ),
    baseline("windowsHostProcess", &[(0, c::host_process)]),
    restricted(
        "allowPrivilegeEscalation",
        "",
        &[(8, c::escalation), (25, |pod| c::unless_windows(pod, c::escalation))],
    ),
    restricted(
        "capabilities_restricted",
        "capabilities_baseline",
        &[(22, c::all_capabilities), (25, |pod| c::unless_windows(pod, c::all_capabilities))],
    ),
    restricted("procMount_restricted", "procMount", &[(35, c::proc_mount)]),
    restricted("restrictedVolumes", "hostPathVolumes", &[(0, c::volumes)]),
    restricted(
        "runAsNonRoot",
        "",
        &[(0, c::non_root), (35, |pod| c::unless_own_users(pod, c::non_root))],
    ),
    restricted(
        "runAsUser",
        "",
        &[(23, c::root_user), (35, |pod| c::unless_own_users(pod, c::root_user))],
    ),
    restricted(
        "seccompProfile_restricted",
        "seccompProfile_baseline",
        &[(19, c::some_seccomp), (25, |pod| c::unless_windows(pod, c::some_seccomp))],
    ),
];

impl Check {
    /// The form that a version has, if it has any.
    fn at(&self, version: Version) -> Option<Control> {
        self.forms.iter().rev().find(|(since, _)| Version(*since) <= version).map(|(_, form)| *form)
    }
}

/// Everything about the pod that the level forbids.
pub(super) fn violations(asked: LevelVersion, pod: Pod<'_>) -> Vec<Violation> {
    let applying = CHECKS.iter().filter(|check| check.level <= asked.level);
    applying
        .filter(|check| {
            let stands_in = |other: &&Check| {
                other.replaces == check.name
                    && other.level <= asked.level
                    && other.at(asked.version).is_some()
            };
            !CHECKS.iter().any(|other| stands_in(&other))
        })
        .filter_map(|check| check.at(asked.version)?(pod))
        .collect()
}

/// All reasons and details in one line.
pub(super) fn details(violations: &[Violation]) -> String {
    let told = violations.iter().map(|one| match one.detail.as_str() {
        "" => one.reason.clone(),
        detail => format!("{} ({detail})", one.reason),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// The reasons alone.
pub(super) fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|one| one.reason.as_str()).collect::<Vec<_>>().join(", ")
}
