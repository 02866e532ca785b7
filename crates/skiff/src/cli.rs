//! The command line: what can be asked, and how answers and failures reach the terminal.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::cluster::UpOptions;
use crate::layout::{DEFAULT_DATA_DIRECTORY, Layout};
use crate::{check, command};

#[derive(Parser)]
#[command(
    name = "skiff",
    version,
    about = "Kubernetes in one light binary",
    long_about = "Kubernetes in one light binary.\n\n\
        `skiff up` turns this machine into a cluster that speaks the Kubernetes v1.36 API;\n\
        `kubectl` and every other Kubernetes client work with it unchanged.",
    after_help = "First steps:\n  \
        skiff up --detach                       start a cluster and come back when it is ready\n  \
        export KUBECONFIG=$(skiff kubeconfig --path)\n  \
        kubectl get nodes\n  \
        skiff down                              stop it and leave nothing running"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// The cluster that a command means.
#[derive(Args, Debug, Clone)]
pub(crate) struct Target {
    /// Directory that holds everything of the cluster
    #[arg(long, global = true, env = "SKIFF_DATA_DIR", default_value = DEFAULT_DATA_DIRECTORY, value_name = "DIR")]
    data_dir: PathBuf,
}

impl Target {
    pub(crate) fn layout(&self) -> Layout {
        Layout::new(&self.data_dir)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Start a whole cluster on this machine: control plane and node
    Up(Box<UpOptions>),
    /// Stop the cluster and its pods, and remove what they left in the kernel; data stays
    Down {
        #[command(flatten)]
        target: Target,
        /// Remove the data directory too: every object, certificate, image and volume
        #[arg(long)]
        purge: bool,
    },
    /// Say what runs and whether it is well
    Status {
        #[command(flatten)]
        target: Target,
    },
    /// Print the administrator's kubeconfig
    Kubeconfig {
        #[command(flatten)]
        target: Target,
        /// Print the file's path instead of its content
        #[arg(long)]
        path: bool,
    },
    /// Container images on this node
    Image {
        #[command(flatten)]
        target: Target,
        #[command(subcommand)]
        action: ImageAction,
    },
    /// Examine whether this machine can run a cluster, and say what to do where it can't
    Check {
        #[command(flatten)]
        target: Target,
        /// Port that the API server would listen on
        #[arg(long, default_value_t = 6443)]
        port: u16,
    },
    /// Print the version
    Version,
}

#[derive(Subcommand)]
pub(crate) enum ImageAction {
    /// Load image archives (OCI or docker layout) into the node
    Import {
        /// Archives
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List the node's images
    List,
}

/// Parses the command line and runs the command. Failures are told on standard error, with their
/// causes, and as exit code 1; a wrong command line is exit code 2.
pub(crate) fn run() -> ExitCode {
    match execute(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("skiff: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(options) => command::up::run(*options),
        Command::Down { target, purge } => command::down::run(&target.layout(), purge),
        Command::Status { target } => command::status::run(&target.layout()),
        Command::Kubeconfig { target, path } => command::kubeconfig::run(&target.layout(), path),
        Command::Image { target, action } => command::image::run(&target.layout(), action),
        Command::Check { target, port } => Ok(check::command(&target.layout(), port)),
        Command::Version => {
            println!("skiff {} (Kubernetes v1.36)", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
