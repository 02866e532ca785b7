//! Probes: one task a container and kind, which asks at its pace and reports when the verdict changes. Knows nothing
//! of what follows from a verdict.

mod counter;
mod grpc;

use std::{sync::Arc, time::Duration};

use cri::Runtime;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1 as api, apimachinery::pkg::util::intstr::IntOrString};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};

use self::counter::Counter;
use crate::{http_get, pod::ProbeKind};

/// The most of a command's output that is shown, bytes.
const OUTPUT: usize = 10 * 1024;

/// How long a container counts as new.
const JUST_STARTED: Duration = Duration::from_secs(2);
/// Pauses between attempts while it is new.
const EARLY_FIRST: Duration = Duration::from_millis(20);
const EARLY_MOST: Duration = Duration::from_millis(250);

/// What is probed.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) container: Arc<api::Container>,
    /// The runtime's id.
    pub(crate) id: String,
    pub(crate) started_at: Timestamp,
    /// The address probes go to.
    pub(crate) host: String,
}

/// What a probe reports.
pub(crate) enum Report {
    /// One attempt failed; this is what users are told.
    Failed(String),
    /// The verdict after thresholds is now this.
    Verdict(bool),
}

/// The probe of a kind, if the container has one.
pub(crate) fn probe_of(container: &api::Container, kind: ProbeKind) -> Option<&api::Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
    }
}

/// The name of a kind in messages.
pub(crate) fn name(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "Startup",
        ProbeKind::Readiness => "Readiness",
        ProbeKind::Liveness => "Liveness",
    }
}

/// Probes until it is dropped. Waits for `startup` (the startup probe's success) first. `known` is the verdict that
/// holds before the first attempt.
pub(crate) async fn run(
    target: Target,
    kind: ProbeKind,
    known: bool,
    mut startup: watch::Receiver<bool>,
    mut report: impl FnMut(Report) + Send,
) {
    let Some(probe) = probe_of(&target.container, kind).cloned() else { return };
    if kind != ProbeKind::Startup && startup.wait_for(|passed| *passed).await.is_err() {
        return;
    }
    let period = seconds(probe.period_seconds, 10);
    let mut ticks = interval_at(first_attempt(&probe, target.started_at), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut counter = Counter::new(&probe, known);
    loop {
        ticks.tick().await;
        let limit = seconds(probe.timeout_seconds, 1);
        let outcome = match attempt(&target, &probe, limit).await {
            Err(_) if is_new(&target, &probe, period) => {
                once_it_listens(&target, &probe, limit, period).await
            }
            outcome => outcome,
        };
        if let Err(message) = &outcome {
            report(Report::Failed(message.clone()));
        }
        if let Some(verdict) = counter.count(outcome.is_ok()) {
            report(Report::Verdict(verdict));
            // A startup probe has done its work once it succeeds; liveness and startup end with the container.
            if kind == ProbeKind::Startup || (kind == ProbeKind::Liveness && !verdict) {
                return;
            }
        }
    }
}

/// A container that has only just started may not listen yet; that is no failure, and waiting a whole period to find
/// out that it does would be a pity.
fn is_new(target: &Target, probe: &api::Probe, period: Duration) -> bool {
    probe.exec.is_none() && age(target.started_at) < period.min(JUST_STARTED)
}

/// Tries again and again, in short steps, until the container answers or is no longer new.
async fn once_it_listens(
    target: &Target,
    probe: &api::Probe,
    limit: Duration,
    period: Duration,
) -> Result<(), String> {
    let mut pause = EARLY_FIRST;
    loop {
        sleep(pause).await;
        pause = (pause * 3 / 2).min(EARLY_MOST);
        let outcome = attempt(target, probe, limit).await;
        if outcome.is_ok() || !is_new(target, probe, period) {
            return outcome;
        }
    }
}

fn age(started_at: Timestamp) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(started_at)).unwrap_or_default()
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default),
    )
}

/// At once, or when the initial delay is over.
fn first_attempt(probe: &api::Probe, started_at: Timestamp) -> Instant {
    let delay = Duration::from_secs(
        probe.initial_delay_seconds.and_then(|v| u64::try_from(v).ok()).unwrap_or(0),
    );
    let running =
        Duration::try_from(Timestamp::now().duration_since(started_at)).unwrap_or_default();
    Instant::now() + delay.saturating_sub(running)
}

/// One attempt.
async fn attempt(target: &Target, probe: &api::Probe, limit: Duration) -> Result<(), String> {
    if let Some(action) = &probe.exec {
        exec(target, action.command.clone().unwrap_or_default(), limit).await
    } else if let Some(action) = &probe.http_get {
        let answer =
            http_get::get(action, &target.container, &target.host, "kube-probe/1.36", limit)
                .await?;
        match answer.status {
            200..=399 => Ok(()),
            status => Err(format!("HTTP probe failed with statuscode: {status}")),
        }
    } else if let Some(action) = &probe.tcp_socket {
        let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&target.host);
        tcp(&target.container, host, &action.port, limit).await
    } else if let Some(action) = &probe.grpc {
        let service = action.service.as_deref().unwrap_or_default();
        grpc::check(&target.host, action.port, service, limit).await
    } else {
        Err("missing probe handler".to_owned())
    }
}

async fn exec(target: &Target, command: Vec<String>, limit: Duration) -> Result<(), String> {
    let shown = command.join(" ");
    match timeout(limit, target.runtime.exec_sync(target.id.clone(), command, limit)).await {
        Ok(Ok(answer)) if answer.exit_code == 0 => Ok(()),
        Ok(Ok(answer)) => {
            let mut output = answer.stdout;
            output.extend(answer.stderr);
            output.truncate(OUTPUT);
            Err(String::from_utf8_lossy(&output).into_owned())
        }
        Ok(Err(cri::RuntimeError::DeadlineExceeded(_))) | Err(_) => {
            Err(format!("command timed out: {shown:?} timed out after {}s", limit.as_secs()))
        }
        Ok(Err(error)) => Err(error.to_string()),
    }
}

async fn tcp(
    container: &api::Container,
    host: &str,
    port: &IntOrString,
    limit: Duration,
) -> Result<(), String> {
    let port =
        http_get::port(container, port).ok_or_else(|| format!("couldn't find port: {port:?}"))?;
    match timeout(limit, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(http_get::dial(host, port, &error)),
        Err(_) => Err(format!("dial tcp {host}:{port}: i/o timeout")),
    }
}
