//! Stopping one container (hook, drain, signal, kill) and finding out how a container ended.

use std::{sync::Arc, time::Duration};

use cri::v1;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::start::message_file;
use crate::{
    context::Context,
    hooks, logs,
    pod::{Event, Exit, StopPlan},
    resources,
    spec::{self, PodId, fields::Facts},
};

/// What a container gets at the least between stop signal and kill.
const LEAST: Duration = Duration::from_secs(2);
/// Longest termination message, bytes.
const MESSAGE: u64 = 4096;
/// What of the log stands in for a missing message: bytes and lines.
const LOG_TAIL: (usize, usize) = (2048, 80);
/// Pauses between questions whether a container has ended.
const ASK_AGAIN: Duration = Duration::from_millis(5);
const ASK_MOST: Duration = Duration::from_millis(500);

/// How long the news of an out-of-memory kill may lag behind that of the exit.
const MEMORY_NEWS: Duration = Duration::from_millis(500);

/// The kernel drops a signal that the first process of a namespace has no handler for. A container younger than this
/// may not have installed its handler yet, and the signal is sent only once.
const YOUNG: Duration = Duration::from_millis(500);

/// One stop.
pub(super) struct Job {
    pub(super) pod: Arc<api::Pod>,
    pub(super) spec: api::Container,
    pub(super) plan: StopPlan,
    pub(super) facts: Facts,
    pub(super) about: api::ObjectReference,
    pub(super) started_at: Option<Timestamp>,
}

/// Runs it: the hook at once, the signal when hook and proxies are done, the kill when the grace period is over.
pub(super) async fn run(context: Arc<Context>, job: Job) -> Option<Event> {
    let Job { pod, spec, plan, facts, about, started_at } = job;
    let since = Instant::now();
    context.recorder.normal(&about, "Killing", plan.message.clone());
    let uid = PodId::of(&pod).uid;
    let hook = async {
        let Some(handler) = spec.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) else {
            return;
        };
        let host = facts.pod_ips.first().map_or("127.0.0.1", String::as_str);
        if let Err(error) =
            hooks::run(&context.runtime, handler, &spec, &plan.id, host, plan.grace).await
        {
            debug!(container = spec.name, %error, "preStop hook failed");
            context.recorder.warning(&about, "FailedPreStopHook", "PreStopHook failed");
        }
    };
    let drain = async {
        let limit = context.options.drain_limit.min(plan.grace / 2);
        if plan.drain && !limit.is_zero() && !context.drain.withdrawn(&uid, limit).await {
            debug!(container = spec.name, "proxies did not withdraw the pod in time");
        }
    };
    let grown_up = async {
        let age = started_at.map(|at| Duration::try_from(Timestamp::now().duration_since(at)));
        if let Some(age) = age {
            sleep(YOUNG.saturating_sub(age.unwrap_or_default())).await;
        }
    };
    futures::join!(hook, drain, grown_up);
    let mut failures = 0u32;
    loop {
        let left = plan.grace.saturating_sub(since.elapsed()).max(LEAST);
        match context.runtime.stop_container(plan.id.clone(), left).await {
            Ok(()) => break,
            Err(error) if error.is_not_found() => break,
            Err(error) => {
                failures += 1;
                warn!(container = spec.name, %error, "the container could not be stopped; trying again");
                sleep(Duration::from_secs(1).saturating_mul(failures.min(10))).await;
            }
        }
    }
    exited(context, pod, plan.container, spec.name, plan.id).await
}

/// Waits until the runtime reports the end of a container that is said to have ended. `None` if it still runs.
pub(super) async fn exited(
    context: Arc<Context>,
    pod: Arc<api::Pod>,
    index: usize,
    name: String,
    id: String,
) -> Option<Event> {
    let mut pause = ASK_AGAIN;
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(10) {
        if let Some(exit) = exit_of(&context, &pod, &name, &id).await {
            let exit = match exit.reason.as_str() {
                "Error" if has_memory_limit(&pod, &name) => {
                    // The news of an out-of-memory kill may come after that of the exit.
                    let until = Instant::now() + MEMORY_NEWS;
                    while Instant::now() < until && !context.monitor.was_out_of_memory(&id) {
                        sleep(ASK_AGAIN).await;
                    }
                    exit_of(&context, &pod, &name, &id).await.unwrap_or(exit)
                }
                _ => exit,
            };
            return Some(Event::Exited { container: index, exit });
        }
        sleep(pause).await;
        pause = (pause * 2).min(ASK_MOST);
    }
    None
}

fn has_memory_limit(pod: &api::Pod, name: &str) -> bool {
    let containers =
        pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
    containers.into_iter().any(|c| c.name == name && resources::limit(c, "memory").is_some())
}

/// How a container ended; `None` while it has not, or when the runtime does not answer.
pub(super) async fn exit_of(
    context: &Context,
    pod: &api::Pod,
    name: &str,
    id: &str,
) -> Option<Exit> {
    match context.runtime.container_status(id.to_owned(), false).await {
        Ok(answer) => {
            let status = answer.status?;
            (status.state() == v1::ContainerState::ContainerExited).then_some(())?;
            let mut exit = read_exit(&status);
            if context.monitor.was_out_of_memory(id) && exit.code != 0 {
                exit.reason = "OOMKilled".to_owned();
            }
            exit.message = message(context, pod, name, &status, &exit).await;
            Some(exit)
        }
        Err(error) if error.is_not_found() => Some(Exit {
            id: id.to_owned(),
            image: String::new(),
            image_id: String::new(),
            code: 137,
            reason: "ContainerStatusUnknown".to_owned(),
            message: "The container could not be located when the pod was terminated".to_owned(),
            started_at: None,
            finished_at: Timestamp::now(),
        }),
        Err(_) => None,
    }
}

/// A container's status in the machine's words, without its termination message.
pub(crate) fn read_exit(status: &v1::ContainerStatus) -> Exit {
    let note = |key: &str| status.annotations.get(key).cloned();
    let reason = match (status.reason.as_str(), status.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    Exit {
        id: status.id.clone(),
        image: note(spec::IMAGE).unwrap_or_else(|| status.image.clone().unwrap_or_default().image),
        image_id: note(spec::IMAGE_ID).unwrap_or_else(|| status.image_ref.clone()),
        code: status.exit_code,
        reason: reason.to_owned(),
        message: status.message.clone(),
        started_at: time(status.started_at),
        finished_at: time(status.finished_at).unwrap_or_else(Timestamp::now),
    }
}

/// Nanoseconds since 1970, where zero means never.
pub(crate) fn time(nanos: i64) -> Option<Timestamp> {
    (nanos > 0).then(|| Timestamp::from_nanosecond(i128::from(nanos)).ok()).flatten()
}

/// The termination message: the file's contents, or the end of the log if the container asks for that and failed.
async fn message(
    context: &Context,
    pod: &api::Pod,
    name: &str,
    status: &v1::ContainerStatus,
    exit: &Exit,
) -> String {
    let id = PodId::of(pod);
    let attempt = status.metadata.as_ref().map_or(0, |m| m.attempt);
    let file = message_file(&context.options.pod_dir(&id.uid), name, attempt);
    let written =
        tokio::task::spawn_blocking(move || read_limited(&file)).await.unwrap_or_default();
    if !written.is_empty() {
        return written;
    }
    let spec =
        pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
    let wants_log = spec
        .into_iter()
        .find(|c| c.name == name)
        .is_some_and(|c| c.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"));
    if wants_log && exit.code != 0 && !status.log_path.is_empty() {
        let path = status.log_path.clone();
        let (bytes, lines) = LOG_TAIL;
        return tokio::task::spawn_blocking(move || logs::tail_text(path.as_ref(), bytes, lines))
            .await
            .unwrap_or_default();
    }
    exit.message.clone()
}

fn read_limited(file: &std::path::Path) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(file) {
        let _ = file.take(MESSAGE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
