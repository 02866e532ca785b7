//! The project's own checks and generators: what CI runs, and what writes checked-in tables.
//!
//! Owns no product logic; each subcommand is one module with a `run` function.

mod bench;
mod facts;
mod images;
mod layers;
mod test;
mod verify;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "skiff's checks and generators")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything CI checks apart from the tests: formatting, clippy, docs, layers.
    Verify,
    /// Everything CI checks: `verify`, then all tests.
    Test,
    /// Fail on an import between crates that the architecture forbids.
    Layers,
    /// Build the image archives of the sample website into dist/images.
    Images,
    /// Measure a release build beside its budgets: `up`, `nodes`, `idle`, `pods`, `api` or `network`, with their options.
    Bench {
        /// The bench, and its options.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Write the checked-in tables of API facts from a directory of reference data.
    Facts {
        /// The directory that holds resources.json, schema-facts.json and the rest.
        #[arg(long)]
        reference: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    std::env::set_current_dir(workspace_root())?;
    match Arguments::parse().task {
        Task::Verify => verify::run(),
        Task::Test => test::run(),
        Task::Layers => layers::run(),
        Task::Images => images::run(),
        Task::Bench { arguments } => bench::run(&arguments),
        Task::Facts { reference } => facts::run(&reference),
    }
}

/// The directory of the workspace's Cargo.toml.
fn workspace_root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map_or(here.clone(), PathBuf::from)
}
