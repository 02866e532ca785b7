//! What the kernel says about a process: memory and processor time.

use std::time::Duration;

use anyhow::Context;

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Resident, pages shared with other processes included.
    pub(crate) resident: u64,
    /// Resident, shared pages divided among those who share them.
    pub(crate) proportional: u64,
}

/// The memory of process `pid`.
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok()
            })
            .map(|kibibytes| kibibytes * 1024)
            .with_context(|| format!("{path} has no {name}"))
    };
    Ok(Memory { resident: field("Rss:")?, proportional: field("Pss:")? })
}

/// Processor time that process `pid` has used, all threads, user and system.
pub(crate) fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    // The second field is the name in parentheses and may hold anything; utime and stime are the
    // 14th and 15th, in hundredths of a second (USER_HZ is 100 wherever Linux runs).
    let (_, rest) = text.rsplit_once(')').with_context(|| format!("{path} is unusual"))?;
    let ticks = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()
        .with_context(|| format!("{path} is unusual"))?;
    Ok(Duration::from_millis(ticks * 10))
}

/// The process whose command line begins with a program called `program` and contains `word`.
pub(crate) fn find(program: &str, word: &str) -> Option<u32> {
    let entries = std::fs::read_dir("/proc").ok()?;
    entries.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line);
        let first = line.split('\0').next()?;
        (first.rsplit('/').next()? == program && line.contains(word)).then_some(pid)
    })
}
