//! Security contexts: container over pod, as the runtime takes them. Pure.

use std::path::Path;

use cri::v1;
use k8s_openapi::api::core::v1 as api;

/// Paths of /proc that containers do not see, unless they ask for all of it.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Paths of /proc that containers cannot write.
const READ_ONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Namespaces a pod's containers share with each other or with the node.
pub(super) fn namespaces(pod: &api::Pod) -> v1::NamespaceOption {
    let spec = pod.spec.clone().unwrap_or_default();
    let node_or = |node: Option<bool>, otherwise| {
        if node.unwrap_or(false) { v1::NamespaceMode::Node } else { otherwise }
    };
    let pid = if spec.share_process_namespace.unwrap_or(false) {
        v1::NamespaceMode::Pod
    } else {
        v1::NamespaceMode::Container
    };
    v1::NamespaceOption {
        network: node_or(spec.host_network, v1::NamespaceMode::Pod).into(),
        pid: node_or(spec.host_pid, pid).into(),
        ipc: node_or(spec.host_ipc, v1::NamespaceMode::Pod).into(),
        target_id: String::new(),
    }
}

/// Shares the processes of the container `target`, unless the pod's setting shares more.
pub(super) fn look_into(namespaces: &mut v1::NamespaceOption, target: &str) {
    if namespaces.pid() == v1::NamespaceMode::Container {
        namespaces.set_pid(v1::NamespaceMode::Target);
        namespaces.target_id = target.to_owned();
    }
}

fn profile(profile: Option<&api::SeccompProfile>, root: &Path) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let (kind, reference) = match profile.map(|p| (p.type_.as_str(), p.localhost_profile.clone())) {
        Some(("RuntimeDefault", _)) => (ProfileType::RuntimeDefault, String::new()),
        Some(("Localhost", name)) => {
            let path = root.join(name.unwrap_or_default());
            (ProfileType::Localhost, path.to_string_lossy().into_owned())
        }
        _ => (ProfileType::Unconfined, String::new()),
    };
    v1::SecurityProfile { profile_type: kind.into(), localhost_ref: reference }
}

fn number(value: Option<i64>) -> Option<v1::Int64Value> {
    value.map(|value| v1::Int64Value { value })
}

/// The sandbox's security context.
pub(super) fn sandbox(pod: &api::Pod) -> v1::LinuxSandboxSecurityContext {
    let spec = pod.spec.clone().unwrap_or_default();
    let context = spec.security_context.unwrap_or_default();
    let privileged = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .any(|c| c.security_context.as_ref().and_then(|s| s.privileged).unwrap_or(false));
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        run_as_user: number(context.run_as_user),
        run_as_group: if context.run_as_user.is_some() {
            number(context.run_as_group)
        } else {
            None
        },
        supplemental_groups: groups(&context),
        privileged,
        seccomp: Some(v1::SecurityProfile::default()),
        ..Default::default()
    }
}

fn groups(context: &api::PodSecurityContext) -> Vec<i64> {
    context.supplemental_groups.iter().flatten().copied().chain(context.fs_group).collect()
}

/// The user an image runs as.
#[derive(Debug, Clone, Default)]
pub(crate) struct ImageUser {
    pub(crate) uid: Option<i64>,
    pub(crate) name: String,
}

/// A container's security context. Profiles of the node are files below `seccomp_root`.
///
/// # Errors
/// When the container must not run as root but would, or nobody can tell.
pub(super) fn container(
    pod: &api::Pod,
    container: &api::Container,
    user: &ImageUser,
    seccomp_root: &Path,
) -> Result<v1::LinuxContainerSecurityContext, String> {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(of_pod.run_as_user);
    let run_as_group = own.run_as_group.or(of_pod.run_as_group);
    if own.run_as_non_root.or(of_pod.run_as_non_root).unwrap_or(false) {
        check_non_root(pod, container, run_as_user, user)?;
    }
    let privileged = own.privileged.unwrap_or(false);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |paths: &[&str]| {
        if unmasked { Vec::new() } else { paths.iter().map(|p| (*p).to_owned()).collect() }
    };
    let (uid, name) = match (run_as_user, user.uid) {
        (Some(uid), _) => (Some(uid), String::new()),
        (None, Some(uid)) => (Some(uid), String::new()),
        (None, None) => (None, user.name.clone()),
    };
    Ok(v1::LinuxContainerSecurityContext {
        capabilities: own.capabilities.map(|c| v1::Capability {
            add_capabilities: c.add.unwrap_or_default(),
            drop_capabilities: c.drop.unwrap_or_default(),
        }),
        privileged,
        namespace_options: Some(namespaces(pod)),
        run_as_user: number(uid),
        run_as_username: name,
        run_as_group: number(run_as_group),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: groups(&of_pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(MASKED),
        readonly_paths: paths(READ_ONLY),
        seccomp: Some(profile(
            own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref()),
            seccomp_root,
        )),
        apparmor: None,
    })
}

fn check_non_root(
    pod: &api::Pod,
    container: &api::Container,
    run_as_user: Option<i64>,
    user: &ImageUser,
) -> Result<(), String> {
    let id = super::PodId::of(pod);
    let place = format!(
        "(pod: \"{}_{}({})\", container: {})",
        id.name, id.namespace, id.uid, container.name
    );
    match (run_as_user, user.uid, user.name.as_str()) {
        (Some(0), _, _) => Err(format!("container's runAsUser breaks non-root policy {place}")),
        (Some(_), _, _) => Ok(()),
        (None, Some(0), _) => {
            Err(format!("container has runAsNonRoot and image will run as root {place}"))
        }
        (None, Some(_), _) => Ok(()),
        (None, None, "") => {
            Err(format!("container has runAsNonRoot and image will run as root {place}"))
        }
        (None, None, name) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {place}"
        )),
    }
}
