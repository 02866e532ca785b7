//! The probes of a pod's containers: starting them, ending them, and what their reports lead to.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{sync::watch, task::AbortHandle, time::Instant};

use super::{Actor, Message, effects};
use crate::{
    pod::{Event, ProbeKind},
    probes,
};

/// How soon the same failure of a probe is told again.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// The probes of one container.
pub(super) struct Probing {
    pub(super) tasks: Vec<(ProbeKind, AbortHandle)>,
    pub(super) startup: watch::Sender<bool>,
}

impl Actor {
    pub(super) fn stop_probes(&mut self, container: usize, only: Option<&[ProbeKind]>) {
        let Some(probing) = self.probes.get_mut(&container) else { return };
        probing.tasks.retain(|(kind, task)| {
            let stop = only.is_none_or(|kinds| kinds.contains(kind));
            if stop {
                task.abort();
            }
            !stop
        });
        if only.is_none() {
            self.probes.remove(&container);
        }
    }

    pub(super) fn start_probes(
        &mut self,
        index: usize,
        id: &str,
        started_at: Timestamp,
        (startup, ready): (bool, bool),
    ) {
        let Some(spec) = self.state.spec_of(index).cloned() else { return };
        let ips = self.context.facts_of(&self.state.pod, self.state.ips()).pod_ips;
        let target = probes::Target {
            runtime: self.context.runtime.clone(),
            container: Arc::new(spec),
            id: id.to_owned(),
            started_at,
            host: ips.first().cloned().unwrap_or_else(|| "127.0.0.1".to_owned()),
        };
        let passed = watch::Sender::new(startup);
        let mut tasks = Vec::new();
        for kind in [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness] {
            let known = match kind {
                ProbeKind::Startup if startup => continue,
                ProbeKind::Startup => false,
                ProbeKind::Readiness => ready,
                ProbeKind::Liveness => true,
            };
            if probes::probe_of(&target.container, kind).is_none() {
                continue;
            }
            let report = self.reporter(index, id.to_owned(), kind);
            let job = probes::run(target.clone(), kind, known, passed.subscribe(), report);
            let handle = self.tasks.spawn(async move {
                job.await;
                None
            });
            tasks.push((kind, handle));
        }
        if !tasks.is_empty() {
            self.probes.insert(index, Probing { tasks, startup: passed });
        }
    }

    /// What a probe's reports lead to.
    fn reporter(
        &self,
        container: usize,
        id: String,
        kind: ProbeKind,
    ) -> impl FnMut(probes::Report) + Send + use<> {
        let sender = self.sender.clone();
        let recorder = self.context.recorder.clone();
        let about = effects::about(&self.state, Some(container));
        let mut told: Option<(String, Instant)> = None;
        move |report| match report {
            // The same failure every second would use up what a pod may have in events, and hide the others.
            probes::Report::Failed(message)
                if told
                    .as_ref()
                    .is_some_and(|(last, at)| *last == message && at.elapsed() < TELL_AGAIN) => {}
            probes::Report::Failed(message) => {
                told = Some((message.clone(), Instant::now()));
                recorder.warning(
                    &about,
                    "Unhealthy",
                    format!("{} probe failed: {message}", probes::name(kind)),
                );
            }
            probes::Report::Verdict(healthy) => {
                let event = Event::Probed { container, id: id.clone(), kind, healthy };
                // The inbox is drained all the time; if it is full now, the report must not be lost.
                let sender = sender.clone();
                tokio::spawn(async move {
                    let _ = sender.send(Message::Event(event)).await;
                });
            }
        }
    }
}
