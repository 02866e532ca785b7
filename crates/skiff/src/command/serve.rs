//! `skiff up`, `skiff server`, `skiff agent`: a role in this process, or with `--detach` in one that goes
//! on by itself.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::raise;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::check;
use crate::cluster::{self, AgentOptions, Common, ServerOptions, UpOptions};
use crate::layout::Layout;
use crate::local;
use crate::machine;
use crate::progress::Progress;

/// How long a detached cluster may take until its node is Ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn up(options: UpOptions) -> anyhow::Result<ExitCode> {
    if options.common.detach {
        let others = options.local.others(&options.common.target.layout());
        return detach(&options.common, "the cluster is ready", true, others);
    }
    serve(&options.common.log.clone(), true, |shutdown| cluster::up(options, shutdown))
}

pub(crate) fn server(options: ServerOptions) -> anyhow::Result<ExitCode> {
    if options.common.detach {
        return detach(&options.common, "the server is ready", true, 0);
    }
    serve(&options.common.log.clone(), false, |shutdown| cluster::server(options, shutdown))
}

pub(crate) fn agent(options: AgentOptions) -> anyhow::Result<ExitCode> {
    if options.common.detach {
        return detach(&options.common, "the node is part of the cluster", false, 0);
    }
    serve(&options.common.log.clone(), true, |shutdown| cluster::agent(options, shutdown))
}

fn serve<F: Future<Output = anyhow::Result<()>>>(
    filter: &str,
    has_node: bool,
    role: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<ExitCode> {
    log(filter);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let outcome = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        tokio::spawn(cancel_on_signal(shutdown.clone(), has_node));
        role(shutdown).await
    });
    // Blocking work that hangs must not keep a process from ending that has nothing left to do.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome.map(|()| ExitCode::SUCCESS)
}

fn log(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_else(|_| "info".into());
    // A second subscriber in one process can only come from a test.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}

/// SIGTERM and SIGINT end the process and leave pods running, but not when the machine itself ends.
async fn cancel_on_signal(shutdown: CancellationToken, has_node: bool) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return tracing::warn!("signals cannot be received: stop skiff with SIGKILL");
    };
    tokio::select! {
        _ = terminate.recv() => {
            if has_node && machine::goes_down().await && raise(cluster::POWER_FAILURE).is_ok() {
                return shutdown.cancelled().await;
            }
        }
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping; pods keep running until `skiff down`");
    shutdown.cancel();
}

/// `others` is how many nodes on this machine have to be Ready beside the process' own.
fn detach(
    common: &Common,
    done: &str,
    has_kubeconfig: bool,
    others: usize,
) -> anyhow::Result<ExitCode> {
    check::require_root()?;
    let layout = common.target.layout();
    let progress = Progress::new();
    std::fs::create_dir_all(layout.root()).with_context(|| {
        format!(
            "data directory {} cannot be made: choose another with --data-dir",
            layout.root().display()
        )
    })?;
    let log_start = std::fs::metadata(layout.log()).map_or(0, |log| log.len());
    let mut child = start_in_background(&layout)?;
    wait_until_ready(&layout, others, log_start, &mut child, &progress)?;
    progress.done(done);
    if has_kubeconfig {
        println!("export KUBECONFIG={}", layout.kubeconfig().display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The same command line without `--detach`, in a session of its own.
fn start_in_background(layout: &Layout) -> anyhow::Result<Child> {
    let log =
        OpenOptions::new().create(true).append(true).open(layout.log()).with_context(|| {
            format!("data directory {} cannot be written to", layout.root().display())
        })?;
    let executable = std::env::current_exe().context("find this executable")?;
    let mut command = Command::new(executable);
    command
        .args(std::env::args_os().skip(1).filter(|argument| argument != "--detach"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share the log")?)
        .stderr(log)
        .process_group(0);
    command.spawn().context("start skiff in the background")
}

fn wait_until_ready(
    layout: &Layout,
    others: usize,
    log_start: u64,
    child: &mut Child,
    progress: &Progress,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    let mut seen = 0;
    loop {
        seen += show_steps(layout, log_start, seen, progress);
        if layout.ready_mark(child.id()).exists() && local::all_ready(layout, others) {
            return Ok(());
        }
        if let Some(status) = child.try_wait().context("watch the background process")? {
            bail!("{}", reason(&log_since(layout, log_start), status));
        }
        if Instant::now() > deadline {
            bail!(
                "not ready after {READY_TIMEOUT:?}; skiff goes on trying, see {}",
                layout.log().display()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Shows the steps that the background process has logged since `seen`; returns how many are new.
fn show_steps(layout: &Layout, from: u64, seen: usize, progress: &Progress) -> usize {
    let steps: Vec<String> = log_since(layout, from)
        .lines()
        .filter_map(|line| line.split_once(cluster::STEP).map(|(_, step)| step.trim().to_owned()))
        .skip(seen)
        .collect();
    steps.iter().for_each(|step| progress.done(step));
    steps.len()
}

/// Why the background process ended: what it said last on its own behalf, else the end of its log.
fn reason(log: &str, status: ExitStatus) -> String {
    if let Some((_, reason)) = format!("\n{log}").rsplit_once("\nskiff: ") {
        return reason.trim_end().to_owned();
    }
    let lines: Vec<&str> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(12)..].join("\n");
    format!("skiff ended while starting ({status}):\n{end}")
}

fn log_since(layout: &Layout, from: u64) -> String {
    let bytes = std::fs::read(layout.log()).unwrap_or_default();
    let from = usize::try_from(from).unwrap_or(0).min(bytes.len());
    String::from_utf8_lossy(&bytes[from..]).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_last_word_is_the_reason() {
        let log = "2026 INFO x\nskiff: older\n2026 WARN y\nskiff: this machine cannot:\n  a\n  b\n";
        let status = ExitStatus::from_raw(256);
        assert_eq!(reason(log, status), "this machine cannot:\n  a\n  b");
        assert_eq!(reason("skiff: no\n", status), "no");
        let killed = reason("INFO x\nINFO y\n", ExitStatus::from_raw(9));
        assert!(killed.ends_with("(signal: 9 (SIGKILL)):\nINFO x\nINFO y"), "{killed}");
    }
}
