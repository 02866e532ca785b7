//! The audit log: one line of JSON an event, in a file that is put aside when it has grown.

use std::{io, path::PathBuf};

use bytes::Bytes;
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncWriteExt, BufWriter},
};

use super::Waiting;

/// What every line begins with.
const HEAD: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#;
/// Events written before they are flushed.
const BATCH: usize = 1000;

/// Where the log is, and how large it becomes.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The file; `-` is standard output.
    pub path: PathBuf,
    /// Bytes after which it is put aside; 0 is never.
    pub max_size: u64,
    /// Logs that are kept beside the one that is written; 0 is all of them.
    pub max_backups: usize,
}

impl LogOptions {
    /// A log that grows to 100 MiB and keeps all that was put aside.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), max_size: 100 << 20, max_backups: 0 }
    }
}

/// An open log.
pub(super) struct Log {
    options: LogOptions,
    file: BufWriter<File>,
    size: u64,
}

impl Log {
    pub(super) async fn open(options: LogOptions) -> io::Result<Self> {
        let mut options = options;
        if options.path.as_os_str() == "-" {
            // Whatever it is, it cannot be put aside.
            options = LogOptions { path: "/dev/stdout".into(), max_size: 0, max_backups: 0 };
        }
        let (file, size) = open(&options.path).await?;
        Ok(Self { options, file, size })
    }

    pub(super) async fn run(mut self, mut waiting: Waiting) {
        while let Some(batch) = waiting.batch(BATCH).await {
            if let Err(error) = self.write(&batch).await {
                tracing::error!(%error, "audit log cannot be written");
            }
            waiting.done(&batch);
        }
    }

    async fn write(&mut self, batch: &[Bytes]) -> io::Result<()> {
        for event in batch {
            let rest = event.strip_prefix(b"{").unwrap_or(event);
            let line = [HEAD, rest, b"\n"].concat();
            self.size += line.len() as u64;
            self.file.write_all(&line).await?;
        }
        self.file.flush().await?;
        if self.options.max_size > 0 && self.size > self.options.max_size {
            self.put_aside().await?;
        }
        Ok(())
    }

    /// Renames the log by the time, as `audit-2026-01-31T12-00-00.000.log`, and begins a new one.
    async fn put_aside(&mut self) -> io::Result<()> {
        let path = &self.options.path;
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S%.3f");
        let (stem, extension) = parts(path);
        tokio::fs::rename(path, path.with_file_name(format!("{stem}-{now}{extension}"))).await?;
        (self.file, self.size) = open(path).await?;
        if self.options.max_backups > 0 {
            let mut old = self.backups().await?;
            old.sort_unstable();
            let excess = old.len().saturating_sub(self.options.max_backups);
            for gone in old.into_iter().take(excess) {
                tokio::fs::remove_file(gone).await?;
            }
        }
        Ok(())
    }

    async fn backups(&self) -> io::Result<Vec<PathBuf>> {
        let path = &self.options.path;
        let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
        let mut entries = tokio::fs::read_dir(directory.unwrap_or(".".as_ref())).await?;
        let (stem, extension) = parts(path);
        let mut found = Vec::new();
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name().to_string_lossy().into_owned();
            let middle = name
                .strip_prefix(&stem)
                .and_then(|rest| rest.strip_prefix('-'))
                .and_then(|rest| rest.strip_suffix(&extension));
            // Only what looks like a time is ours.
            let time =
                |text: &str| text.len() == 23 && text.starts_with(|c: char| c.is_ascii_digit());
            if middle.is_some_and(time) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }
}

async fn open(path: &std::path::Path) -> io::Result<(BufWriter<File>, u64)> {
    let mut open = OpenOptions::new();
    let file = open.create(true).append(true).mode(0o600).open(path).await?;
    let size = file.metadata().await?.len();
    Ok((BufWriter::new(file), size))
}

/// The file's name without and with only its extension.
fn parts(path: &std::path::Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().map(|text| format!(".{}", text.to_string_lossy()));
    (stem, extension.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn logs_are_put_aside_and_old_ones_removed() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("audit.log");
        std::fs::write(directory.path().join("audit-notes.log"), "mine").expect("written");
        let options = LogOptions { max_size: 100, max_backups: 2, ..LogOptions::new(&path) };
        let mut log = Log::open(options).await.expect("opens");
        for round in 0..5 {
            let event =
                Bytes::from(format!("{{\"round\":{round},\"text\":\"{}\"}}", "x".repeat(100)));
            log.write(&[event]).await.expect("written");
            // Names differ by the millisecond.
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        assert_eq!(log.backups().await.expect("listed").len(), 2);
        assert!(directory.path().join("audit-notes.log").exists());
        assert_eq!(std::fs::metadata(&path).expect("there").len(), 0);
        let last = log.backups().await.expect("listed").into_iter().max().expect("one");
        let text = std::fs::read_to_string(last).expect("read");
        assert!(
            text.starts_with("{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"round\":4")
        );
    }
}
