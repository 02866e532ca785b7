//! What skiff costs: how long it takes, what it occupies, how much it serves, beside what a bare
//! server and a bare store do on the same machine in the same run.
//!
//! Knows skiff from outside only: its executable, its API, its processes in `/proc`. Asserts nothing:
//! it prints figures beside budgets.

mod bare;
mod endpoint;
mod figures;
mod inside;
mod load;
mod process;
mod report;
mod wire;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
#[command(name = "skiff-bench", about = "What skiff costs")]
struct Arguments {
    #[command(flatten)]
    subject: Subject,
    #[command(subcommand)]
    bench: Bench,
}

/// What is measured.
#[derive(clap::Args, Clone)]
struct Subject {
    /// The skiff executable
    #[arg(long, default_value = "target/release/skiff", value_name = "FILE")]
    skiff: PathBuf,
    /// Directory of the image archives
    #[arg(long, default_value = "dist/images", value_name = "DIR")]
    images: PathBuf,
}

#[derive(Subcommand)]
enum Bench {
    /// Time from process start to /readyz and to node Ready; size of the executable
    Up {
        /// How many starts on an empty data directory, and how many restarts
        #[arg(long, default_value_t = 5)]
        starts: usize,
        /// How many pods there are when it restarts with many; 0 for none
        #[arg(long, default_value_t = 100_000)]
        pods: u64,
    },
    /// Time until three nodes on one machine are Ready, and until a machine has joined; memory of an agent
    Nodes {
        /// How many starts, and how many that join
        #[arg(long, default_value_t = 3)]
        starts: usize,
    },
    /// Memory and processor of a cluster that does nothing
    Idle {
        /// How long to watch the processor, in seconds
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// Time from creating a pod to Ready, a deployment to Available; memory a pod costs
    Pods {
        /// How many pods, one after the other
        #[arg(long, default_value_t = 10)]
        pods: usize,
        /// Replicas of the deployment
        #[arg(long, default_value_t = 30)]
        replicas: usize,
    },
    /// Requests a second beside a bare server and a bare store; memory of many objects
    Api {
        /// How many seconds of each load
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// How many ConfigMaps
        #[arg(long, default_value_t = 24_600)]
        objects: u64,
    },
    /// Traffic of pods beside plain traffic; Services, policies, DNS and joining
    Network(figures::network::Options),
    /// The bare server: answers each path with the bytes of a file, until its input ends
    #[command(hide = true)]
    Bare {
        /// Where to write the kubeconfig of a client
        #[arg(long)]
        kubeconfig: PathBuf,
        /// The body of `/one`
        #[arg(long)]
        one: PathBuf,
        /// The body of `/all`
        #[arg(long)]
        all: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let Arguments { mut subject, bench } = Arguments::parse();
    // Nodes of a cluster are started from elsewhere.
    subject.skiff = std::path::absolute(&subject.skiff).context("the path of skiff")?;
    subject.images = std::path::absolute(&subject.images).context("the path of the images")?;
    match bench {
        Bench::Up { starts, pods } => figures::up::run(&subject, starts, pods),
        Bench::Nodes { starts } => figures::nodes::run(&subject, starts),
        Bench::Idle { seconds } => figures::idle::run(&subject, seconds),
        Bench::Pods { pods, replicas } => figures::pods::run(&subject, pods, replicas),
        Bench::Api { seconds, objects } => figures::api::run(&subject, seconds, objects),
        Bench::Network(options) => figures::network::run(&subject, &options),
        Bench::Bare { kubeconfig, one, all } => bare::serve(&kubeconfig, &one, &all),
    }
}
