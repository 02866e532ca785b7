//! Rules read off a pod's specification: grace periods, restart policies. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;

use super::model::{Ending, Exit, PodState, Role};

/// What a container gets at the least between stop signal and kill (upstream's).
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// The API's default grace period, seconds.
const DEFAULT_GRACE: i64 = 30;

/// When the deletion of the pod was asked for.
pub(super) fn deletion(pod: &api::Pod) -> Option<Timestamp> {
    pod.metadata.deletion_timestamp.as_ref().map(|time| time.0)
}

/// Seconds as the API counts them; negative counts as none.
pub(super) fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// The grace period in the specification.
pub(super) fn spec_grace(pod: &api::Pod) -> Duration {
    let asked = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    seconds(asked.unwrap_or(DEFAULT_GRACE))
}

/// The grace period of the deletion that was asked for, or else the one in the specification.
pub(super) fn grace(pod: &api::Pod) -> Duration {
    pod.metadata.deletion_grace_period_seconds.map_or_else(|| spec_grace(pod), seconds)
}

/// What is left of a pod's grace period, never less than containers always get.
pub(super) fn left(ending: &Ending, now: Timestamp) -> Duration {
    let used = Duration::try_from(now.duration_since(ending.since)).unwrap_or_default();
    ending.grace.saturating_sub(used).max(LEAST_GRACE)
}

/// `Always`, `OnFailure` or `Never`, as it applies to one container (KEP-753, KEP-5307).
pub(crate) fn restart_policy<'a>(pod: &'a api::Pod, container: &'a api::Container) -> &'a str {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    container.restart_policy.as_deref().or(of_pod).unwrap_or("Always")
}

/// Whether a container that ended like this is started again while the pod is active.
pub(super) fn should_restart(state: &PodState, index: usize, exit: &Exit) -> bool {
    let (Some(container), Some(spec)) = (state.containers.get(index), state.spec_of(index)) else {
        return false;
    };
    match (container.role, restart_policy(&state.pod, spec)) {
        (Role::Sidecar, _) | (Role::Main, "Always") => true,
        (_, "Never") => false,
        (Role::Ephemeral, _) => false,
        (Role::Init, _) | (Role::Main, _) => exit.code != 0,
    }
}

/// Whether stopping this container now leads to its restart.
pub(super) fn may_restart(state: &PodState, index: usize) -> bool {
    let active = state.life == super::Life::Active;
    active && state.spec_of(index).is_some_and(|spec| restart_policy(&state.pod, spec) != "Never")
}
