//! Can this machine run a cluster? One function a question; each answer says what to do.
//!
//! `skiff check` prints all answers; `skiff up` asks the same questions and stops at a failure
//! before anything is started.

mod kernel;
mod resources;
mod tools;

use std::process::ExitCode;

use anyhow::bail;

use crate::layout::Layout;

/// The pods' bridge unless told otherwise.
const BRIDGE: &str = "skiff0";

/// The answer to one question.
#[derive(Debug)]
pub(crate) struct Finding {
    what: &'static str,
    verdict: Verdict,
}

#[derive(Debug)]
enum Verdict {
    /// Fine; the text says what was found.
    Good(String),
    /// Something works less well; the text says what, and what to do.
    Poor(String),
    /// A cluster cannot run; the text says why, and what to do.
    Bad(String),
}

/// What is asked about.
pub(crate) struct Subject<'a> {
    pub(crate) layout: &'a Layout,
    /// Ports that will be listened on.
    pub(crate) ports: Vec<u16>,
    /// Whether skiff is to start the container runtime.
    pub(crate) own_runtime: bool,
    /// Whether pods are to run here.
    pub(crate) node: bool,
    /// Whether further nodes are to run here.
    pub(crate) further_nodes: bool,
    /// The pods' bridge.
    pub(crate) bridge: &'a str,
}

/// Asks every question.
fn examine(subject: &Subject<'_>) -> Vec<Finding> {
    let mut findings = vec![kernel::root(), kernel::version()];
    if subject.node {
        findings.extend([
            kernel::cgroups(),
            kernel::namespaces(),
            kernel::capabilities(),
            tools::nft(),
            tools::forwarding(subject.bridge),
        ]);
    }
    if subject.further_nodes {
        findings.push(tools::nsenter(true));
    }
    if subject.own_runtime {
        findings.extend(["containerd", "runc", "ctr"].map(tools::runtime));
    }
    findings.push(resources::data_directory(subject.layout.root()));
    findings.push(resources::space(subject.layout.root()));
    findings.extend(subject.ports.iter().map(|port| resources::port(*port)));
    findings
}

/// Fails unless running as root: asked first, because without it everything else fails misleadingly.
pub(crate) fn require_root() -> anyhow::Result<()> {
    match kernel::root().verdict {
        Verdict::Bad(text) => bail!("{text}"),
        Verdict::Good(_) | Verdict::Poor(_) => Ok(()),
    }
}

/// Fails with every reason why a cluster cannot run here; warns of what works less well.
pub(crate) fn require(subject: &Subject<'_>) -> anyhow::Result<()> {
    let findings = examine(subject);
    let bad: Vec<String> = findings
        .iter()
        .filter_map(|finding| match &finding.verdict {
            Verdict::Bad(text) => Some(format!("{}: {text}", finding.what)),
            Verdict::Good(_) | Verdict::Poor(_) => None,
        })
        .collect();
    for finding in &findings {
        if let Verdict::Poor(text) = &finding.verdict {
            tracing::warn!(check = finding.what, "{text}");
        }
    }
    match bad.as_slice() {
        [] => Ok(()),
        [one] => bail!("{one}"),
        many => bail!("this machine cannot run a cluster yet:\n  {}", many.join("\n  ")),
    }
}

/// `skiff check`: prints every answer; exit code 1 where one is bad.
pub(crate) fn command(layout: &Layout, port: u16) -> ExitCode {
    let serving = crate::instance::find(layout).ok().flatten().is_some_and(|(_, serving)| serving);
    let ports = if serving { Vec::new() } else { vec![port, 10250] };
    let subject = Subject {
        layout,
        ports,
        own_runtime: true,
        node: true,
        further_nodes: false,
        bridge: BRIDGE,
    };
    let mut findings = examine(&subject);
    findings.push(tools::nsenter(false));
    let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
    for Finding { what, verdict } in &findings {
        let (mark, text) = match verdict {
            Verdict::Good(text) => ("ok", text),
            Verdict::Poor(text) => ("warning", text),
            Verdict::Bad(text) => ("FAILED", text),
        };
        println!("{what:width$}  {mark:7}  {text}");
    }
    if serving {
        println!("{:width$}  ok       a cluster runs in {}", "ports", layout.root().display());
    }
    let bad = findings.iter().any(|finding| matches!(finding.verdict, Verdict::Bad(_)));
    if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
