//! What the kernel says about this process, as text.

use std::{fmt::Write as _, time::Duration};

use super::describe;

/// Writes CPU time, memory, descriptors and start.
pub(super) fn write(out: &mut String, uptime: Duration) {
    // Fields after the command's closing parenthesis, which may itself hold anything.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    let field = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    // Ticks are hundredths of a second and pages 4 KiB wherever skiff runs.
    if let (Some(user), Some(system)) = (field(11), field(12)) {
        describe(out, "process_cpu_seconds_total", "counter", "User and system time in seconds.");
        let _ = writeln!(out, "process_cpu_seconds_total {}", (user + system) / 100.0);
    }
    if let (Some(size), Some(pages)) = (field(20), field(21)) {
        describe(out, "process_virtual_memory_bytes", "gauge", "Virtual memory in bytes.");
        let _ = writeln!(out, "process_virtual_memory_bytes {size}");
        describe(out, "process_resident_memory_bytes", "gauge", "Resident memory in bytes.");
        let _ = writeln!(out, "process_resident_memory_bytes {}", pages * 4096.0);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        describe(out, "process_open_fds", "gauge", "Open file descriptors.");
        let _ = writeln!(out, "process_open_fds {}", files.count());
    }
    let now = jiff::Timestamp::now().as_millisecond();
    let started = Duration::from_millis(u64::try_from(now).unwrap_or(0)).saturating_sub(uptime);
    describe(out, "process_start_time_seconds", "gauge", "Start, in seconds since 1970.");
    let _ = writeln!(out, "process_start_time_seconds {}", started.as_secs_f64());
}
