//! Running `nft`: one script, one atomic transaction.
//!
//! Knows nothing of what the scripts say.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tokio::io::AsyncWriteExt;

/// No transaction of ours takes longer unless the kernel is stuck.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// How much of nft's complaint is kept, in bytes.
const COMPLAINT_BYTES: usize = 2048;

/// Why a transaction was not made. The kernel's rules are then as they were before.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is not there.
    #[error("{} not found: install the package nftables", .0.display())]
    Missing(PathBuf),
    /// The program could not be run.
    #[error("run {}", .0.display())]
    Run(PathBuf, #[source] std::io::Error),
    /// The program or the kernel refused.
    #[error("nft refused: {0}")]
    Refused(String),
    /// The program did not finish in time.
    #[error("nft did not finish within {} s", TIME_LIMIT.as_secs())]
    Slow,
}

fn find(nft: &Path) -> PathBuf {
    nft_program(nft).unwrap_or_else(|| nft.to_owned())
}

/// Where the program is, if it is anywhere. One called by its bare name is on the path, or where
/// Debian keeps it, which is on no ordinary user's path and not on every service's.
pub fn nft_program(nft: &Path) -> Option<PathBuf> {
    if nft.components().count() > 1 {
        return nft.is_file().then(|| nft.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut found = std::env::split_paths(&path).chain(usual).map(|directory| directory.join(nft));
    found.find(|candidate| candidate.is_file())
}

fn not_run(nft: &Path, error: std::io::Error) -> NftError {
    if error.kind() == std::io::ErrorKind::NotFound {
        NftError::Missing(nft.to_owned())
    } else {
        NftError::Run(nft.to_owned(), error)
    }
}

fn refused(stderr: &[u8]) -> NftError {
    let kept = &stderr[..stderr.len().min(COMPLAINT_BYTES)];
    NftError::Refused(String::from_utf8_lossy(kept).trim().to_owned())
}

/// Applies `script`, waiting on this thread.
pub(crate) fn apply(nft: &Path, script: &str) -> Result<(), NftError> {
    let mut child = Command::new(find(nft))
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| not_run(nft, error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that dies early reports why itself.
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| not_run(nft, error))?;
    if output.status.success() { Ok(()) } else { Err(refused(&output.stderr)) }
}

/// What nft answers to `words`.
pub(crate) fn ask(nft: &Path, words: &[&str]) -> Result<String, NftError> {
    let output = Command::new(find(nft))
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_run(nft, error))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(refused(&output.stderr)),
    }
}

/// Applies `script` without blocking the thread.
pub(crate) async fn apply_async(nft: &Path, script: String) -> Result<(), NftError> {
    let mut child = tokio::process::Command::new(find(nft))
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| not_run(nft, error))?;
    let stdin = child.stdin.take();
    let run = async {
        let write = async {
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(script.as_bytes()).await;
            }
        };
        tokio::join!(write, child.wait_with_output()).1
    };
    let output = tokio::time::timeout(TIME_LIMIT, run)
        .await
        .map_err(|_| NftError::Slow)?
        .map_err(|error| not_run(nft, error))?;
    if output.status.success() { Ok(()) } else { Err(refused(&output.stderr)) }
}
