//! From what the machine wants to the tasks that do it.

use super::{Actor, effects, start, stop};
use crate::pod::{Effect, ProbeKind};

impl Actor {
    /// Begins one effect; its result comes back as an event.
    pub(super) fn run_effect(&mut self, effect: Effect) {
        let context = self.context.clone();
        let pod = self.state.pod.clone();
        match effect {
            Effect::MountVolumes => {
                let sources = self.sources();
                let facts = context.facts_of(&pod, self.state.ips());
                self.tasks.spawn(effects::mount_volumes(context, pod, sources, facts));
            }
            Effect::RunSandbox { attempt } => {
                let sender = self.sender.clone();
                self.tasks.spawn(effects::run_sandbox(context, pod, attempt, sender));
            }
            Effect::StopSandbox { id } => {
                self.tasks.spawn(effects::stop_sandbox(context, id));
            }
            Effect::Pull { container } => {
                let Some(spec) = self.state.spec_of(container).cloned() else { return };
                let about = effects::about(&self.state, Some(container));
                self.tasks.spawn(effects::pull(context, pod, container, spec, about));
            }
            Effect::Start { container, attempt, image, sandbox } => {
                let Some(spec) = self.state.spec_of(container).cloned() else { return };
                let job = start::Job {
                    index: container,
                    about: effects::about(&self.state, Some(container)),
                    ips: self.state.ips().to_vec(),
                    sources: self.sources(),
                    sender: self.sender.clone(),
                    target: self.state.target_of(container).map(str::to_owned),
                    spec,
                    attempt,
                    image,
                    sandbox,
                    pod,
                };
                self.tasks.spawn(start::run(context, job));
            }
            Effect::PostStart { container, id } => {
                let Some(spec) = self.state.spec_of(container).cloned() else { return };
                let facts = context.facts_of(&pod, self.state.ips());
                self.tasks.spawn(effects::post_start(context, spec, container, id, facts));
            }
            Effect::Probe { container, id, started_at, startup_passed, ready } => {
                self.start_probes(container, &id, started_at, (startup_passed, ready));
            }
            Effect::Stop(plan) => {
                // Readiness goes on being asked; the rest would only kill what is being stopped.
                self.stop_probes(plan.container, Some(&[ProbeKind::Startup, ProbeKind::Liveness]));
                let Some(spec) = self.state.spec_of(plan.container).cloned() else { return };
                let facts = context.facts_of(&pod, self.state.ips());
                let about = effects::about(&self.state, Some(plan.container));
                let container = self.state.containers.get(plan.container);
                let started_at = container.and_then(|c| c.running()).map(|r| r.started_at);
                let job = stop::Job { pod, spec, plan, facts, about, started_at };
                self.tasks.spawn(stop::run(context, job));
            }
            Effect::Hasten { id, grace, .. } => {
                self.tasks.spawn(async move {
                    let _ = context.runtime.stop_container(id, grace).await;
                    None
                });
            }
            Effect::Record { kind, reason, message, container } => {
                effects::record(
                    &context.recorder,
                    &effects::about(&self.state, container),
                    kind,
                    reason,
                    message,
                );
            }
            Effect::CleanUp => {
                if let Some(keeper) = self.keeper.take() {
                    keeper.abort();
                }
                self.tasks.spawn(effects::clean_up(context, pod));
            }
            Effect::Delete => self.delete = true,
        }
    }
}
