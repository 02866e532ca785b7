//! The machine on scripts: events in, effects and shown status out, as text.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;
use serde_json::{Value, json};

use super::*;

mod node;

/// A pod on its way, with a clock of its own.
struct Script {
    state: PodState,
    now: Timestamp,
    status: api::PodStatus,
}

impl Script {
    fn new(spec: Value) -> Self {
        let pod = pod(spec, &json!({}));
        let now = Timestamp::from_second(1_000_000).unwrap();
        Self { state: new(pod, now), now, status: api::PodStatus::default() }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Sends an event; what the machine wants done comes back as text.
    fn send(&mut self, event: Event) -> String {
        let (state, effects) = step(self.state.clone(), event, self.now);
        self.state = state;
        self.status =
            project(&self.state, &self.status, &["10.1.1.1".to_owned()], "test", self.now);
        effects.iter().map(|effect| text(&self.state, effect)).collect::<Vec<_>>().join(", ")
    }

    /// Brings the pod to the point where its containers start: volumes and sandbox are there.
    fn up_to_containers(&mut self) -> String {
        self.send(Event::Adopt(Seen::default()));
        self.send(Event::VolumesMounted(Ok(())));
        self.send(sandbox("s0"))
    }

    /// Pulls and starts a container under the given id.
    fn start(&mut self, container: usize, id: &str) -> String {
        let image = ImageReady { name: "i".into(), reference: "sha".into(), id: "sha".into() };
        let first = self.send(Event::Pulled { container, result: Ok(image) });
        assert!(first.contains("start"), "{first}");
        let started = Started { id: id.into(), started_at: self.now };
        self.send(Event::Started { container, result: Ok(started) })
    }

    fn exit(&mut self, container: usize, id: &str, code: i32) -> String {
        let exit = exit(id, code, self.now);
        self.send(Event::Exited { container, exit })
    }

    fn phase(&self) -> &str {
        self.status.phase.as_deref().unwrap_or_default()
    }

    /// `name:state` of every container as the API shows it.
    fn shown(&self) -> String {
        let all = self
            .status
            .init_container_statuses
            .iter()
            .chain(&self.status.container_statuses)
            .flatten();
        let one = |s: &api::ContainerStatus| {
            let state = s.state.clone().unwrap_or_default();
            let word = match (state.waiting, state.running, state.terminated) {
                (Some(w), ..) => w.reason.unwrap_or_default(),
                (_, Some(_), _) if s.ready => "ready".to_owned(),
                (_, Some(_), _) => "running".to_owned(),
                (_, _, Some(t)) => format!("{}({})", t.reason.unwrap_or_default(), t.exit_code),
                _ => "?".to_owned(),
            };
            format!("{}:{word}", s.name)
        };
        all.map(one).collect::<Vec<_>>().join(" ")
    }

    fn condition(&self, kind: &str) -> String {
        let found = self.status.conditions.iter().flatten().find(|c| c.type_ == kind);
        found.map_or("-".to_owned(), |c| {
            format!(
                "{} {}",
                c.status,
                c.reason.as_deref().or(c.message.as_deref()).unwrap_or_default()
            )
        })
    }

    fn deleted(&self, grace: i64) -> Event {
        let mut pod = (*self.state.pod).clone();
        pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now));
        pod.metadata.deletion_grace_period_seconds = Some(grace);
        Event::Spec(Arc::new(pod))
    }
}

fn pod(spec: Value, status: &Value) -> Arc<api::Pod> {
    let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec, "status": status});
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn sandbox(id: &str) -> Event {
    let attempt = id[1..].parse().unwrap();
    Event::SandboxStarted(Ok(SeenSandbox {
        id: id.into(),
        attempt,
        ready: true,
        ips: vec!["10.0.0.9".into()],
    }))
}

fn exit(id: &str, code: i32, at: Timestamp) -> Exit {
    Exit {
        id: id.into(),
        image: "i".into(),
        image_id: "sha".into(),
        code,
        reason: if code == 0 { "Completed".into() } else { "Error".into() },
        message: String::new(),
        started_at: Some(at),
        finished_at: at,
    }
}

fn text(state: &PodState, effect: &Effect) -> String {
    let name = |index: &usize| state.containers[*index].name.clone();
    match effect {
        Effect::MountVolumes => "mount".into(),
        Effect::RunSandbox { attempt } => format!("sandbox {attempt}"),
        Effect::StopSandbox { id } => format!("stop sandbox {id}"),
        Effect::Pull { container } => format!("pull {}", name(container)),
        Effect::Start { container, attempt, sandbox, .. } => {
            format!("start {} #{attempt} in {sandbox}", name(container))
        }
        Effect::PostStart { container, .. } => format!("hook {}", name(container)),
        Effect::Probe { container, ready, .. } => {
            format!("probe {} ready={ready}", name(container))
        }
        Effect::Stop(plan) => format!(
            "stop {} {}s{}",
            name(&plan.container),
            plan.grace.as_secs(),
            if plan.drain { " drain" } else { "" }
        ),
        Effect::Hasten { container, grace, .. } => {
            format!("hasten {} {}s", name(container), grace.as_secs())
        }
        Effect::Record { reason, .. } => format!("!{reason}"),
        Effect::CleanUp => "clean up".into(),
        Effect::Delete => "delete".into(),
    }
}

fn one(restart: &str) -> Value {
    json!({"restartPolicy": restart, "containers": [{"name": "c", "image": "i"}]})
}

#[test]
fn a_pod_comes_up() {
    let mut script = Script::new(one("Always"));
    assert_eq!(script.send(Event::Adopt(Seen::default())), "mount");
    assert_eq!((script.phase(), script.shown().as_str()), ("Pending", "c:ContainerCreating"));
    assert_eq!(script.send(Event::VolumesMounted(Ok(()))), "sandbox 0, pull c");
    assert_eq!(script.condition("PodReadyToStartContainers"), "False ");
    // The image may be here before the sandbox is.
    let image = ImageReady { name: "i".into(), ..Default::default() };
    assert_eq!(script.send(Event::Pulled { container: 0, result: Ok(image) }), "");
    assert_eq!(script.send(sandbox("s0")), "start c #0 in s0");
    assert_eq!(script.condition("Ready"), "False ContainersNotReady");
    let started = Started { id: "a".into(), started_at: script.now };
    assert_eq!(
        script.send(Event::Started { container: 0, result: Ok(started) }),
        "probe c ready=true"
    );
    assert_eq!((script.phase(), script.shown().as_str()), ("Running", "c:ready"));
    assert_eq!(script.condition("Ready"), "True ");
    assert_eq!(script.status.pod_ip.as_deref(), Some("10.0.0.9"));
    assert_eq!(
        script.status.container_statuses.as_ref().unwrap()[0].container_id.as_deref(),
        Some("test://a")
    );
}

#[test]
fn a_crashing_container_backs_off() {
    let mut script = Script::new(one("Always"));
    script.up_to_containers();
    script.start(0, "a");
    // The first crash is tried again at once.
    assert_eq!(script.exit(0, "a", 1), "pull c");
    script.start(0, "b");
    assert_eq!(script.status.container_statuses.as_ref().unwrap()[0].restart_count, 1);
    assert_eq!(script.exit(0, "b", 1), "!BackOff");
    assert_eq!((script.phase(), script.shown().as_str()), ("Running", "c:CrashLoopBackOff"));
    script.pass(Duration::from_secs(9));
    assert_eq!(script.send(Event::Tick), "");
    script.pass(Duration::from_secs(1));
    assert_eq!(script.send(Event::Tick), "pull c");
    assert_eq!(script.shown(), "c:CrashLoopBackOff");
    script.start(0, "c");
    // It runs for long enough: the slate is clean.
    script.pass(Duration::from_secs(601));
    assert_eq!(script.exit(0, "c", 1), "pull c");
}

#[test]
fn a_job_ends() {
    for (policy, code, after, phase) in [
        ("Never", 0, "stop sandbox s0", "Succeeded"),
        ("Never", 1, "stop sandbox s0", "Failed"),
        ("OnFailure", 0, "stop sandbox s0", "Succeeded"),
        ("OnFailure", 1, "pull c", "Running"),
    ] {
        let mut script = Script::new(one(policy));
        script.up_to_containers();
        script.start(0, "a");
        assert_eq!(script.exit(0, "a", code), after, "{policy} {code}");
        if after.starts_with("stop") {
            script.send(Event::SandboxStopped(Ok(())));
        }
        assert_eq!(script.phase(), phase, "{policy} {code}");
    }
}

#[test]
fn init_containers_and_sidecars_come_first_in_order() {
    let mut script = Script::new(json!({
        "initContainers": [{"name": "one", "image": "i"}, {"name": "side", "image": "i", "restartPolicy": "Always",
            "startupProbe": {"exec": {"command": ["x"]}}}],
        "containers": [{"name": "c", "image": "i"}]}));
    script.send(Event::Adopt(Seen::default()));
    assert_eq!(script.send(Event::VolumesMounted(Ok(()))), "sandbox 0, pull one");
    script.send(sandbox("s0"));
    assert_eq!(script.shown(), "one:PodInitializing side:PodInitializing c:PodInitializing");
    assert_eq!(script.start(0, "a"), "");
    assert_eq!(script.exit(0, "a", 0), "pull side");
    assert_eq!(script.start(1, "b"), "probe side ready=true");
    assert_eq!(script.condition("Initialized"), "False ContainersNotInitialized");
    let passed =
        Event::Probed { container: 1, id: "b".into(), kind: ProbeKind::Startup, healthy: true };
    assert_eq!(script.send(passed), "pull c");
    script.start(2, "c");
    assert_eq!(script.condition("Initialized"), "True ");
    assert_eq!(script.shown(), "one:Completed(0) side:ready c:ready");
    // A sidecar that ends is started again without touching the rest.
    assert_eq!(script.exit(1, "b", 0), "pull side");
    assert_eq!(script.start(1, "d"), "probe side ready=true");
}

#[test]
fn a_failed_init_container_that_never_restarts_fails_the_pod() {
    let mut script = Script::new(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "one", "image": "i"}], "containers": [{"name": "c", "image": "i"}]}));
    script.up_to_containers();
    script.start(0, "a");
    assert_eq!(script.exit(0, "a", 1), "stop sandbox s0");
    script.send(Event::SandboxStopped(Ok(())));
    assert_eq!(script.phase(), "Failed");
}

#[test]
fn deletion_drains_stops_cleans_and_deletes() {
    let mut script = Script::new(json!({
        "initContainers": [{"name": "side", "image": "i", "restartPolicy": "Always"}],
        "containers": [{"name": "c", "image": "i"}]}));
    script.up_to_containers();
    script.start(0, "s");
    script.start(1, "c");
    let deleted = script.deleted(30);
    assert_eq!(script.send(deleted), "stop c 30s drain");
    script.pass(Duration::from_secs(10));
    // Asked again with less time: what is under way is hurried.
    let sooner = script.deleted(12);
    assert_eq!(script.send(sooner), "hasten c 2s");
    assert_eq!(script.exit(1, "c", 0), "stop side 2s");
    assert_eq!(script.exit(0, "s", 143), "stop sandbox s0");
    assert_eq!(script.send(Event::SandboxStopped(Ok(()))), "clean up");
    assert_eq!(script.send(Event::Cleaned), "delete");
    assert_eq!(script.status.pod_ip.as_deref(), Some("10.0.0.9"));
}

#[test]
fn deletion_without_grace_does_not_drain_and_waits_for_what_is_starting() {
    let mut script = Script::new(one("Always"));
    script.up_to_containers();
    let image = ImageReady { name: "i".into(), ..Default::default() };
    script.send(Event::Pulled { container: 0, result: Ok(image) });
    let deleted = script.deleted(0);
    assert_eq!(script.send(deleted), "");
    let started = Started { id: "a".into(), started_at: script.now };
    let effects = script.send(Event::Started { container: 0, result: Ok(started) });
    assert_eq!(effects, "probe c ready=true, stop c 2s");
}

#[test]
fn a_deleted_pod_that_never_began_just_goes() {
    let mut script = Script::new(one("Always"));
    let deleted = script.deleted(30);
    assert_eq!(script.send(deleted), "clean up");
    assert_eq!(script.send(Event::Cleaned), "delete");
}

#[test]
fn a_dead_sandbox_is_replaced_when_its_containers_are_gone() {
    let mut script = Script::new(one("Always"));
    script.up_to_containers();
    script.start(0, "a");
    assert_eq!(
        script.send(Event::SandboxDied { id: "s0".into() }),
        "!SandboxChanged, stop sandbox s0"
    );
    assert_eq!(script.send(Event::SandboxStopped(Ok(()))), "");
    assert_eq!(script.exit(0, "a", 137), "sandbox 1, pull c");
    assert_eq!(script.send(sandbox("s1")), "");
    script.start(0, "b");
    assert_eq!(script.status.container_statuses.as_ref().unwrap()[0].restart_count, 1);
}

#[test]
fn probes_decide_readiness_and_restarts() {
    let mut script = Script::new(
        json!({"terminationGracePeriodSeconds": 7, "containers": [{"name": "c", "image": "i",
        "readinessProbe": {"tcpSocket": {"port": 1}},
        "livenessProbe": {"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 3}}]}),
    );
    script.up_to_containers();
    assert_eq!(script.start(0, "a"), "probe c ready=false");
    assert_eq!(script.shown(), "c:running");
    let probed =
        |kind, healthy, id: &str| Event::Probed { container: 0, id: id.into(), kind, healthy };
    script.send(probed(ProbeKind::Readiness, true, "a"));
    assert_eq!(script.shown(), "c:ready");
    // What an earlier container's probe says means nothing.
    assert_eq!(script.send(probed(ProbeKind::Liveness, false, "z")), "");
    assert_eq!(script.send(probed(ProbeKind::Liveness, false, "a")), "stop c 3s");
    assert_eq!(script.send(probed(ProbeKind::Liveness, false, "a")), "");
    assert_eq!(script.exit(0, "a", 137), "pull c");
}

#[test]
fn failed_pulls_are_shown_then_back_off() {
    let mut script = Script::new(one("Always"));
    script.up_to_containers();
    let failed = || Event::Pulled {
        container: 0,
        result: Err(PullProblem { reason: "ErrImagePull", message: "no such host".into() }),
    };
    assert_eq!(script.send(failed()), "");
    assert_eq!(script.shown(), "c:ErrImagePull");
    script.pass(Duration::from_secs(2));
    assert_eq!(script.send(Event::Tick), "!BackOff, !Failed");
    assert_eq!(script.shown(), "c:ImagePullBackOff");
    let waiting = script.status.container_statuses.as_ref().unwrap()[0]
        .state
        .clone()
        .unwrap()
        .waiting
        .unwrap();
    assert_eq!(
        waiting.message.as_deref(),
        Some("Back-off pulling image \"i\": ErrImagePull: no such host")
    );
    script.pass(Duration::from_secs(8));
    assert_eq!(script.send(Event::Tick), "pull c");
}

#[test]
fn what_waits_for_an_object_is_tried_when_it_appears() {
    let mut script = Script::new(one("Always"));
    script.send(Event::Adopt(Seen::default()));
    assert_eq!(script.send(Event::VolumesMounted(Err("no secret".into()))), "!FailedMount");
    assert_eq!(script.send(Event::SourcesChanged), "mount");
    script.send(Event::VolumesMounted(Ok(())));
    script.send(sandbox("s0"));
    script.send(Event::Pulled {
        container: 0,
        result: Ok(ImageReady { name: "i".into(), ..Default::default() }),
    });
    let problem =
        StartProblem { reason: "CreateContainerConfigError", message: "x".into(), exit: None };
    assert_eq!(script.send(Event::Started { container: 0, result: Err(problem) }), "");
    assert_eq!(script.shown(), "c:CreateContainerConfigError");
    assert_eq!(script.send(Event::SourcesChanged), "pull c");
}

#[test]
fn deadlines_end_pods() {
    let mut script = Script::new(
        json!({"activeDeadlineSeconds": 60, "containers": [{"name": "c", "image": "i"}]}),
    );
    script.up_to_containers();
    script.start(0, "a");
    assert_eq!(wake_at(&script.state, script.now).unwrap(), script.now + Duration::from_secs(60));
    script.pass(Duration::from_secs(60));
    assert_eq!(script.send(Event::Tick), "stop c 30s");
    script.exit(0, "a", 143);
    script.send(Event::SandboxStopped(Ok(())));
    assert_eq!(
        (script.phase(), script.status.reason.as_deref()),
        ("Failed", Some("DeadlineExceeded"))
    );
}

#[test]
fn a_restarted_kubelet_takes_over_without_touching_anything() {
    let status = json!({"containerStatuses": [{"name": "c", "ready": true, "started": true, "restartCount": 2,
        "image": "i", "imageID": "", "containerID": "test://b"}]});
    let spec = json!({"containers": [{"name": "c", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]});
    let now = Timestamp::from_second(2_000_000).unwrap();
    let state = new(pod(spec, &status), now);
    let mut script = Script { status: state.pod.status.clone().unwrap(), state, now };
    let container = |id: &str, attempt, phase| SeenContainer {
        name: "c".into(),
        id: id.into(),
        attempt,
        image: ImageReady { name: "i".into(), ..Default::default() },
        phase,
    };
    let seen = Seen {
        sandboxes: vec![SeenSandbox {
            id: "s0".into(),
            attempt: 0,
            ready: true,
            ips: vec!["10.0.0.9".into()],
        }],
        containers: vec![
            container("b", 2, SeenPhase::Running(now)),
            container("a", 1, SeenPhase::Exited(exit("a", 1, now))),
        ],
    };
    assert_eq!(script.send(Event::Adopt(seen)), "probe c ready=true, mount");
    assert_eq!(script.send(Event::VolumesMounted(Ok(()))), "");
    assert_eq!((script.phase(), script.shown().as_str()), ("Running", "c:ready"));
    let known = &script.status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(known.restart_count, 2);
    assert_eq!(known.last_state.clone().unwrap().terminated.unwrap().exit_code, 1);
}

#[test]
fn finished_pods_never_run_again() {
    let now = Timestamp::from_second(2_000_000).unwrap();
    let state = new(pod(one("Always"), &json!({"phase": "Succeeded"})), now);
    let mut script = Script { state, now, status: api::PodStatus::default() };
    assert_eq!(script.send(Event::Adopt(Seen::default())), "");
    assert_eq!(script.phase(), "Succeeded");
    let deleted = script.deleted(30);
    assert_eq!(script.send(deleted), "clean up");
}

#[test]
fn a_finished_pod_whose_sandbox_was_left_is_stopped_after_a_restart() {
    let now = Timestamp::from_second(2_000_000).unwrap();
    let state = new(pod(one("Never"), &json!({"phase": "Succeeded"})), now);
    let mut script = Script { state, now, status: api::PodStatus::default() };
    let seen = Seen {
        sandboxes: vec![SeenSandbox { id: "s0".into(), attempt: 0, ready: true, ips: Vec::new() }],
        containers: vec![SeenContainer {
            name: "c".into(),
            id: "a".into(),
            attempt: 0,
            image: ImageReady::default(),
            phase: SeenPhase::Exited(exit("a", 0, now)),
        }],
    };
    assert_eq!(script.send(Event::Adopt(seen)), "stop sandbox s0");
    assert_eq!(script.send(Event::SandboxStopped(Ok(()))), "");
    assert_eq!(script.phase(), "Succeeded");
}

#[test]
fn a_container_that_cannot_start_and_never_restarts_has_ended() {
    let mut script = Script::new(one("Never"));
    script.up_to_containers();
    let image = ImageReady { name: "i".into(), reference: "sha".into(), id: "sha".into() };
    script.send(Event::Pulled { container: 0, result: Ok(image) });
    let exit = Exit { reason: "StartError".into(), ..exit("a", 128, script.now) };
    let problem = StartProblem {
        reason: "RunContainerError",
        message: "no such file".into(),
        exit: Some(exit),
    };
    let next = script.send(Event::Started { container: 0, result: Err(problem) });
    assert_eq!(next, "stop sandbox s0");
    script.send(Event::SandboxStopped(Ok(())));
    assert_eq!((script.phase(), script.shown().as_str()), ("Failed", "c:StartError(128)"));
}

#[test]
fn ephemeral_containers_join_and_their_end_changes_nothing() {
    let mut script = Script::new(one("Always"));
    script.up_to_containers();
    script.start(0, "a");
    let mut joined = (*script.state.pod).clone();
    let debugger = json!([{"name": "d", "image": "i", "targetContainerName": "c"}]);
    joined.spec.as_mut().unwrap().ephemeral_containers =
        Some(serde_json::from_value(debugger).unwrap());
    assert_eq!(script.send(Event::Spec(Arc::new(joined))), "pull d");
    assert_eq!(script.state.target_of(1), Some("a"));
    script.start(1, "b");
    assert_eq!(script.exit(1, "b", 3), "");
    let shown = &script.status.ephemeral_container_statuses.as_ref().unwrap()[0];
    assert_eq!(shown.state.clone().unwrap().terminated.unwrap().exit_code, 3);
    assert_eq!((script.phase(), script.shown().as_str()), ("Running", "c:ready"));
}
