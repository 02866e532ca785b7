//! What each control of the Pod Security Standards forbids, in upstream's words.
//!
//! Pure functions over a pod; which of them apply is [`super::checks`]' business.

use std::collections::BTreeSet;

use meta::quote;
use serde_json::Value;

use super::checks::{Pod, Violation};
use crate::admission::{each, text};

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// SELinux types; the last was added later.
pub(super) const SE_TYPES: &[&str] =
    &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
/// Safe sysctls, in the order in which they became so.
pub(super) const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const PLAIN_VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
const OTHER_VOLUMES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

type Said = Option<Violation>;

fn forbid(reason: impl Into<String>, detail: impl Into<String>) -> Said {
    Some(Violation { reason: reason.into(), detail: detail.into() })
}

fn containers<'a>(pod: Pod<'a>) -> impl Iterator<Item = &'a Value> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    lists.into_iter().flat_map(move |list| each(pod.spec, list))
}

/// The names of the containers of which something holds.
fn those<'a>(pod: Pod<'a>, holds: impl Fn(&'a Value) -> bool) -> Vec<&'a str> {
    containers(pod).filter(|one| holds(one)).map(|one| text(one, "name")).collect()
}

fn context(holder: &Value) -> &Value {
    &holder["securityContext"]
}

fn quoted<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    items.into_iter().map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(", ")
}

fn number<'a>(one: &'a str, more: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { more }
}

/// `containers "a", "b"`.
fn named(names: &[&str]) -> String {
    format!("{} {}", number("container", "containers", names.len()), quoted(names.iter().copied()))
}

/// `pod and container "a"`: who set something; nothing if nobody did.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    let who = [pod.then(|| "pod".to_owned()), (!names.is_empty()).then(|| named(names))];
    let who: Vec<String> = who.into_iter().flatten().collect();
    (!who.is_empty()).then(|| who.join(" and "))
}

/// A form of a control that leaves pods of Windows alone.
pub(super) fn unless_windows(pod: Pod<'_>, control: fn(Pod<'_>) -> Said) -> Said {
    if pod.spec["os"]["name"] == "windows" { None } else { control(pod) }
}

/// A form of a control that leaves pods alone which have a user namespace of their own.
pub(super) fn unless_own_users(pod: Pod<'_>, control: fn(Pod<'_>) -> Said) -> Said {
    if pod.spec["hostUsers"] == false { None } else { control(pod) }
}

pub(super) fn app_armor(pod: Pod<'_>) -> Said {
    let bad = |holder: &Value| {
        let profile = &context(holder)["appArmorProfile"];
        let allowed = matches!(text(profile, "type"), "RuntimeDefault" | "Localhost");
        (!profile.is_null() && !allowed).then(|| text(profile, "type").to_owned())
    };
    let names = those(pod, |one| bad(one).is_some());
    let mut values: Vec<String> = bad(pod.spec)
        .into_iter()
        .chain(containers(pod).filter_map(bad))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let annotations = pod.metadata["annotations"].as_object().into_iter().flatten();
    let wrong: BTreeSet<String> = annotations
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(key, value)| {
            let allowed =
                value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with(APP_ARMOR) && !allowed
        })
        .map(|(key, value)| format!("{key}={}", quote(value)))
        .collect();
    let annotated =
        (!wrong.is_empty()).then(|| number("annotation", "annotations", wrong.len()).to_owned());
    let who: Vec<String> =
        setters(bad(pod.spec).is_some(), &names).into_iter().chain(annotated).collect();
    if who.is_empty() {
        return None;
    }
    values.extend(wrong);
    forbid(
        number("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len()),
        format!(
            "{} must not set AppArmor profile type to {}",
            who.join(" and "),
            quoted(values.iter().map(String::as_str))
        ),
    )
}

fn added(container: &Value) -> impl Iterator<Item = &str> {
    each(&context(container)["capabilities"], "add").filter_map(Value::as_str)
}

/// `containers "a" must not include "X" in securityContext.capabilities.add`.
fn too_capable(pod: Pod<'_>, allowed: &[&str]) -> Option<String> {
    let names = those(pod, |one| added(one).any(|capability| !allowed.contains(&capability)));
    if names.is_empty() {
        return None;
    }
    let wrong: BTreeSet<&str> = containers(pod)
        .flat_map(added)
        .filter(|capability| !allowed.contains(capability))
        .collect();
    Some(format!(
        "{} must not include {} in securityContext.capabilities.add",
        named(&names),
        quoted(wrong)
    ))
}

pub(super) fn capabilities(pod: Pod<'_>) -> Said {
    forbid("non-default capabilities", too_capable(pod, CAPABILITIES)?)
}

pub(super) fn all_capabilities(pod: Pod<'_>) -> Said {
    let names = those(pod, |one| {
        !each(&context(one)["capabilities"], "drop").any(|capability| capability == "ALL")
    });
    let missing = (!names.is_empty()).then(|| {
        format!(r#"{} must set securityContext.capabilities.drop=["ALL"]"#, named(&names))
    });
    let details: Vec<String> =
        missing.into_iter().chain(too_capable(pod, &["NET_BIND_SERVICE"])).collect();
    if details.is_empty() { None } else { forbid("unrestricted capabilities", details.join("; ")) }
}

pub(super) fn host_namespaces(pod: Pod<'_>) -> Said {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| pod.spec[**field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    if shared.is_empty() { None } else { forbid("host namespaces", shared.join(", ")) }
}

fn volume_names<'a>(pod: Pod<'a>, holds: impl Fn(&Value) -> bool) -> Vec<&'a str> {
    each(pod.spec, "volumes").filter(|one| holds(one)).map(|one| text(one, "name")).collect()
}

fn named_volumes(names: &[&str]) -> String {
    format!("{} {}", number("volume", "volumes", names.len()), quoted(names.iter().copied()))
}

pub(super) fn host_paths(pod: Pod<'_>) -> Said {
    let names = volume_names(pod, |volume| !volume["hostPath"].is_null());
    if names.is_empty() { None } else { forbid("hostPath volumes", named_volumes(&names)) }
}

pub(super) fn volumes(pod: Pod<'_>) -> Said {
    let is_plain = |volume: &Value| PLAIN_VOLUMES.iter().any(|kind| !volume[*kind].is_null());
    let names = volume_names(pod, |volume| !is_plain(volume));
    if names.is_empty() {
        return None;
    }
    let kind = |volume: &Value| {
        OTHER_VOLUMES.iter().find(|kind| !volume[**kind].is_null()).copied().unwrap_or("unknown")
    };
    let kinds: BTreeSet<&str> =
        each(pod.spec, "volumes").filter(|volume| !is_plain(volume)).map(kind).collect();
    let detail = format!(
        "{} {} {} {}",
        named_volumes(&names),
        number("uses", "use", names.len()),
        number("restricted volume type", "restricted volume types", kinds.len()),
        quoted(kinds)
    );
    forbid("restricted volume types", detail)
}

pub(super) fn host_ports(pod: Pod<'_>) -> Said {
    let ports =
        |one| each(one, "ports").filter_map(|port| port["hostPort"].as_u64().filter(|p| *p != 0));
    let names = those(pod, |one| ports(one).next().is_some());
    if names.is_empty() {
        return None;
    }
    let wrong: BTreeSet<String> =
        containers(pod).flat_map(ports).map(|port| port.to_string()).collect();
    let detail = format!(
        "{} {} {} {}",
        named(&names),
        number("uses", "use", names.len()),
        number("hostPort", "hostPorts", wrong.len()),
        wrong.into_iter().collect::<Vec<_>>().join(", ")
    );
    forbid("hostPort", detail)
}

/// The hosts that a container's probes and hooks name.
fn hosts(container: &Value) -> impl Iterator<Item = &str> {
    let lifecycle = &container["lifecycle"];
    let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
    let handlers = probes.into_iter().chain([&lifecycle["postStart"], &lifecycle["preStop"]]);
    handlers
        .flat_map(|handler| ["httpGet", "tcpSocket"].map(|action| text(&handler[action], "host")))
        .filter(|host| !host.is_empty())
}

pub(super) fn probe_hosts(pod: Pod<'_>) -> Said {
    let names: BTreeSet<&str> = those(pod, |one| hosts(one).next().is_some()).into_iter().collect();
    if names.is_empty() {
        return None;
    }
    let names: Vec<&str> = names.into_iter().collect();
    let wrong: BTreeSet<&str> = containers(pod).flat_map(hosts).collect();
    let detail = format!(
        "{} {} {} {}",
        named(&names),
        number("uses", "use", names.len()),
        number("probe or lifecycle host", "probe or lifecycle hosts", wrong.len()),
        quoted(wrong)
    );
    forbid("probe or lifecycle host", detail)
}

pub(super) fn privileged(pod: Pod<'_>) -> Said {
    let names = those(pod, |one| context(one)["privileged"] == true);
    if names.is_empty() {
        return None;
    }
    forbid("privileged", format!("{} must not set securityContext.privileged=true", named(&names)))
}

pub(super) fn proc_mount(pod: Pod<'_>) -> Said {
    let wrong = |one| context(one)["procMount"].as_str().filter(|mount| *mount != "Default");
    let names = those(pod, |one| wrong(one).is_some());
    if names.is_empty() {
        return None;
    }
    let kinds: BTreeSet<&str> = containers(pod).filter_map(wrong).collect();
    let detail =
        format!("{} must not set securityContext.procMount to {}", named(&names), quoted(kinds));
    forbid("procMount", detail)
}

pub(super) fn se_linux(pod: Pod<'_>, allowed: &[&str]) -> Said {
    fn options(holder: &Value) -> &Value {
        &context(holder)["seLinuxOptions"]
    }
    let set = |holder: &Value, field: &str| !text(options(holder), field).is_empty();
    let bad_type = |holder: &Value| !allowed.contains(&text(options(holder), "type"));
    let bad = |holder: &Value| bad_type(holder) || set(holder, "user") || set(holder, "role");
    let who = setters(bad(pod.spec), &those(pod, bad))?;
    let holders = || containers(pod).chain([pod.spec]);
    let types: BTreeSet<&str> =
        holders().filter(|one| bad_type(one)).map(|one| text(options(one), "type")).collect();
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", number("type", "types", types.len()), quoted(types)));
    }
    for field in ["user", "role"] {
        if holders().any(|holder| set(holder, field)) {
            data.push(format!("{field} may not be set"));
        }
    }
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; "));
    forbid("seLinuxOptions", detail)
}

pub(super) fn seccomp_annotations(pod: Pod<'_>) -> Said {
    let keys = [SECCOMP_POD.to_owned()]
        .into_iter()
        .chain(containers(pod).map(|one| format!("{SECCOMP_CONTAINER}{}", text(one, "name"))));
    let wrong: BTreeSet<String> = keys
        .filter_map(|key| {
            let value = pod.metadata["annotations"][&key].as_str()?;
            let allowed = matches!(value, "runtime/default" | "docker/default")
                || value.starts_with("localhost/");
            (!allowed).then(|| format!("{key}={}", quote(value)))
        })
        .collect();
    if wrong.is_empty() {
        return None;
    }
    let which = number("annotation", "annotations", wrong.len());
    let list = wrong.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    forbid("seccompProfile", format!("forbidden {which} {list}"))
}

fn seccomp_profile(holder: &Value) -> Option<&str> {
    let profile = &context(holder)["seccompProfile"];
    (!profile.is_null()).then(|| text(profile, "type"))
}

fn bad_seccomp(holder: &Value) -> Option<&str> {
    seccomp_profile(holder).filter(|kind| !matches!(*kind, "Localhost" | "RuntimeDefault"))
}

pub(super) fn seccomp(pod: Pod<'_>) -> Said {
    let who =
        setters(bad_seccomp(pod.spec).is_some(), &those(pod, |one| bad_seccomp(one).is_some()))?;
    let kinds: BTreeSet<&str> = containers(pod).chain([pod.spec]).filter_map(bad_seccomp).collect();
    let detail =
        format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(kinds));
    forbid("seccompProfile", detail)
}

pub(super) fn some_seccomp(pod: Pod<'_>) -> Said {
    let wrong = seccomp(pod);
    if wrong.is_some() || seccomp_profile(pod.spec).is_some() {
        return wrong;
    }
    let names = those(pod, |one| seccomp_profile(one).is_none());
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        r#"pod or {} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#,
        named(&names)
    );
    forbid("seccompProfile", detail)
}

pub(super) fn sysctls(pod: Pod<'_>, allowed: &[&str]) -> Said {
    let names = each(context(pod.spec), "sysctls").map(|sysctl| text(sysctl, "name"));
    let wrong: Vec<&str> = names.filter(|name| !allowed.contains(name)).collect();
    if wrong.is_empty() { None } else { forbid("forbidden sysctls", wrong.join(", ")) }
}

pub(super) fn host_process(pod: Pod<'_>) -> Said {
    let bad = |holder: &Value| context(holder)["windowsOptions"]["hostProcess"] == true;
    let who = setters(bad(pod.spec), &those(pod, bad))?;
    forbid(
        "hostProcess",
        format!("{who} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}

pub(super) fn escalation(pod: Pod<'_>) -> Said {
    let names = those(pod, |one| context(one)["allowPrivilegeEscalation"] != false);
    if names.is_empty() {
        return None;
    }
    let detail =
        format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&names));
    forbid("allowPrivilegeEscalation != false", detail)
}

pub(super) fn non_root(pod: Pod<'_>) -> Said {
    const REASON: &str = "runAsNonRoot != true";
    let says = |holder: &Value| context(holder)["runAsNonRoot"].as_bool();
    let explicit = those(pod, |one| says(one) == Some(false));
    if let Some(who) = setters(says(pod.spec) == Some(false), &explicit) {
        return forbid(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = those(pod, |one| says(one).is_none());
    if says(pod.spec) == Some(true) || silent.is_empty() {
        return None;
    }
    let detail = format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent));
    forbid(REASON, detail)
}

pub(super) fn root_user(pod: Pod<'_>) -> Said {
    let bad = |holder: &Value| context(holder)["runAsUser"] == 0;
    let who = setters(bad(pod.spec), &those(pod, bad))?;
    forbid("runAsUser=0", format!("{who} must not set runAsUser=0"))
}
