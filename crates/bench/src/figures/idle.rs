//! What a cluster costs that has nothing to do.

use std::time::{Duration, Instant};

use anyhow::Context;
use testkit::Cluster;

use crate::Subject;
use crate::process::{find, memory, processor_time};
use crate::report::{Budget, Report, megabytes};

/// After its start a cluster settles: caches fill, freed memory goes back to the kernel.
const SETTLE: Duration = Duration::from_secs(15);

/// Measures memory and processor of a cluster without workload.
pub(crate) fn run(subject: &Subject, seconds: u64) -> anyhow::Result<()> {
    let cluster = super::start(subject)?;
    super::tell(&format!("watching an idle cluster for {seconds} s"));
    std::thread::sleep(SETTLE);
    let pid = cluster.pid().context("skiff does not run")?;
    let containerd = containerd(&cluster)?;
    let (begin, before) = (Instant::now(), processor_time(pid)?);
    let containerd_before = processor_time(containerd)?;
    std::thread::sleep(Duration::from_secs(seconds.max(1)));
    let elapsed = begin.elapsed().as_secs_f64();
    let share = |used: Duration| used.as_secs_f64() / elapsed * 100.0;
    let own = share(processor_time(pid)?.saturating_sub(before));
    let others = share(processor_time(containerd)?.saturating_sub(containerd_before));

    let mut report = Report::default();
    let own_memory = memory(pid)?;
    let resident = megabytes(own_memory.resident);
    report.add("resident memory, idle", "664 MB", Budget::AtMost(80.0), resident, "MB");
    let proportional = megabytes(own_memory.proportional);
    report.add("of it proportional (PSS)", "", Budget::None, proportional, "MB");
    report.add("processor, idle", "6.3 % of a core", Budget::AtMost(0.5), own, "% of a core");
    let resident = megabytes(memory(containerd)?.resident);
    report.add("containerd, resident", "55 MB", Budget::None, resident, "MB");
    report.add("containerd, processor", "", Budget::None, others, "% of a core");
    report.print();
    Ok(())
}

fn containerd(cluster: &Cluster) -> anyhow::Result<u32> {
    let directory = cluster.directory().to_str().context("an unusual data directory")?;
    find("containerd", directory).context("containerd does not run")
}
