//! The command line: what can be asked, and how answers and failures reach the terminal.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::cluster::{AgentOptions, ServerOptions, UpOptions, duration};
use crate::layout::{DEFAULT_DATA_DIRECTORY, Layout};
use crate::{check, command};

#[derive(Parser)]
#[command(
    name = "skiff",
    version,
    about = "Kubernetes in one light binary",
    long_about = "Kubernetes in one light binary.\n\n\
        `skiff up` turns this machine into a cluster that speaks the Kubernetes v1.36 API, and\n\
        `skiff agent` adds another one to it;\n\
        `kubectl` and every other Kubernetes client work with it unchanged.",
    after_help = "First steps:\n  \
        skiff up --detach                       start a cluster and come back when it is ready\n  \
        export KUBECONFIG=$(skiff kubeconfig --path)\n  \
        kubectl get nodes\n  \
        skiff down                              stop it and leave nothing running\n\n\
        Further machines:\n  \
        skiff token create                      prints the command to run there"
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
    /// Start a control plane on this machine, for nodes elsewhere
    ///
    /// Store, API server, controllers and scheduler, and no node. `skiff token create` prints the
    /// command by which a machine joins.
    Server(Box<ServerOptions>),
    /// Make this machine a node of a cluster
    ///
    /// Needs one outgoing connection to a server. The token is needed until the machine has joined;
    /// from then on it has identities of its own, which it renews by itself, and it starts again, with
    /// its pods and Services, even while no server answers.
    Agent(Box<AgentOptions>),
    /// Tokens by which machines join
    Token {
        #[command(flatten)]
        target: Target,
        #[command(subcommand)]
        action: TokenAction,
    },
    /// Stop what runs here and its pods, and remove what they left in the kernel; data stays
    Down {
        #[command(flatten)]
        target: Target,
        /// Remove the data directory too: every object, certificate, image and volume
        #[arg(long)]
        purge: bool,
        /// Give pods their time to end, the least important first, as when the machine goes down
        #[arg(long)]
        graceful: bool,
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
pub(crate) enum TokenAction {
    /// Make a token, and print the command that makes a machine a node
    Create {
        /// How long machines may join with it; 0 for ever
        #[arg(long, default_value = "24h", value_name = "TIME", value_parser = ttl)]
        ttl: Duration,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// Print the token alone
        #[arg(long)]
        token_only: bool,
        /// Print the command (as always, unless --token-only)
        #[arg(long, hide = true, conflicts_with = "token_only")]
        print_join_command: bool,
    },
    /// List the tokens
    List,
    /// Delete tokens: nobody joins with them any more; nodes that have joined stay
    Delete {
        /// Tokens, or their first six letters
        #[arg(required = true, value_name = "TOKEN")]
        tokens: Vec<String>,
    },
}

fn ttl(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { duration(text) }
}

#[derive(Subcommand)]
pub(crate) enum ImageAction {
    /// Load image archives (OCI or docker layout) into every node on this machine
    Import {
        /// Load them into this node alone
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Archives
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List the images of the node, or of another one on this machine
    List {
        /// The node
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
    },
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
        Command::Up(options) => command::serve::up(*options),
        Command::Server(options) => command::serve::server(*options),
        Command::Agent(options) => command::serve::agent(*options),
        Command::Token { target, action } => command::token::run(&target.layout(), action),
        Command::Down { target, purge, graceful } => {
            command::down::run(&target.layout(), purge, graceful)
        }
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
