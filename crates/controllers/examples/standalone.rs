//! The controllers alone, against any API server: `cargo run -p skiff-controllers --example
//! standalone -- KUBECONFIG [DISABLED…]`. Ends on interrupt.

use std::{path::PathBuf, process::ExitCode};

use client::{Caches, from_kubeconfig};
use skiff_controllers::{Controllers, ControllersOptions};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: standalone KUBECONFIG [DISABLED…]");
        return ExitCode::from(2);
    };
    let client = match from_kubeconfig(&path).await {
        Ok(client) => client,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let shutdown = CancellationToken::new();
    let caches = Caches::new(client.clone(), shutdown.clone());
    let options = ControllersOptions {
        disabled: arguments.collect(),
        root_ca: Some("test".into()),
        ..ControllersOptions::default()
    };
    let running = Controllers::new(options, caches, client).run(shutdown.clone());
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            shutdown.cancel();
        }
    });
    match running.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
