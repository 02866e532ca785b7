//! What the machine has, read from the kernel.

use std::{collections::BTreeMap, fs, path::Path};

use k8s_openapi::{api::core::v1 as api, apimachinery::pkg::api::resource::Quantity};
use nix::sys::{statvfs::statvfs, utsname::uname};

use crate::KubeletOptions;

/// Processors, memory and disk of the machine.
#[derive(Debug, Clone)]
pub(crate) struct Capacity {
    /// Thousandths of a core.
    pub(crate) cpu_milli: i64,
    /// Bytes.
    pub(crate) memory: i64,
    /// Bytes on the file system of the pods.
    pub(crate) disk: i64,
    reserved_cpu: i64,
    reserved_memory: i64,
    pods: u32,
}

impl Capacity {
    pub(crate) fn read(options: &KubeletOptions) -> Self {
        let cores =
            std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1));
        Self {
            cpu_milli: cores * 1000,
            memory: memory_field("MemTotal:"),
            disk: disk(&options.root_dir).0,
            reserved_cpu: options.reserved_cpu_milli,
            reserved_memory: options.reserved_memory,
            pods: options.max_pods,
        }
    }

    /// CPU for pods, thousandths of a core.
    pub(crate) fn allocatable_cpu(&self) -> i64 {
        (self.cpu_milli - self.reserved_cpu).max(0)
    }

    /// Memory for pods, bytes.
    pub(crate) fn allocatable_memory(&self) -> i64 {
        (self.memory - self.reserved_memory).max(0)
    }

    /// The API's `capacity` and `allocatable`.
    pub(crate) fn lists(&self) -> (BTreeMap<String, Quantity>, BTreeMap<String, Quantity>) {
        let list = |cpu: i64, memory: i64, disk: String| {
            let cpu = if cpu % 1000 == 0 { (cpu / 1000).to_string() } else { format!("{cpu}m") };
            BTreeMap::from([
                ("cpu".to_owned(), Quantity(cpu)),
                ("memory".to_owned(), Quantity(format!("{}Ki", memory / 1024))),
                ("ephemeral-storage".to_owned(), Quantity(disk)),
                ("pods".to_owned(), Quantity(self.pods.to_string())),
            ])
        };
        let capacity = list(self.cpu_milli, self.memory, format!("{}Ki", self.disk / 1024));
        let allocatable = list(
            self.allocatable_cpu(),
            self.allocatable_memory(),
            (self.disk / 10 * 9).to_string(),
        );
        (capacity, allocatable)
    }
}

/// A field of `/proc/meminfo`, bytes.
pub(super) fn memory_field(name: &str) -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<i64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Size and free space of the file system at `path`, bytes.
pub(super) fn disk(path: &Path) -> (i64, i64) {
    let Ok(stat) = statvfs(path) else { return (0, 0) };
    let bytes = |blocks: u64| {
        i64::try_from(blocks.saturating_mul(stat.fragment_size())).unwrap_or(i64::MAX)
    };
    (bytes(stat.blocks()), bytes(stat.blocks_available()))
}

/// Static facts about the machine and its software.
pub(super) fn node_info(runtime: &str) -> api::NodeSystemInfo {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let names = uname().ok();
    let text = |value: Option<&std::ffi::OsStr>| {
        value.map(|v| v.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let os_release = read("/etc/os-release");
    let pretty =
        os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or_default();
    let system = read("/sys/class/dmi/id/product_uuid");
    let machine = read("/etc/machine-id");
    api::NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: runtime.to_owned(),
        kernel_version: text(names.as_ref().map(|n| n.release())),
        kube_proxy_version: String::new(),
        kubelet_version: format!("v1.36.2+skiff.{}", env!("CARGO_PKG_VERSION")),
        system_uuid: if system.is_empty() { machine.clone() } else { system },
        machine_id: machine,
        operating_system: "linux".to_owned(),
        os_image: pretty.trim_matches('"').to_owned(),
        ..Default::default()
    }
}

/// The API's name of this machine's architecture.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
