//! The `skiff` executable: the command line, and the only place that names every component.
//!
//! Under the plugin's name the same file is the node's CNI plugin.

mod check;
mod cli;
mod cluster;
mod command;
mod instance;
mod layout;
mod local;
mod machine;
mod progress;

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by jemalloc at start: few arenas, and freed pages go back to the kernel within a second.
#[cfg(feature = "jemalloc")]
#[expect(unsafe_code, reason = "jemalloc finds its configuration by this symbol")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_OPTIONS: &[u8] =
    b"background_thread:true,narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    if network::cni::is_invocation() {
        return network::cni::main();
    }
    cli::run()
}
