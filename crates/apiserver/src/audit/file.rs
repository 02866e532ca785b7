//! The audit log: one line of JSON an event, in a file that is put aside when it has grown.

use std::{io, path::PathBuf};

use bytes::Bytes;
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncWriteExt, BufWriter},
    sync::mpsc,
};

use super::{Noted, SinkOptions};

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
    /// Days after which those are removed; 0 is never.
    pub max_age: u32,
    /// Whether requests wait for it, and what is too large for it.
    pub sink: SinkOptions,
}

impl LogOptions {
    /// A log that grows to 100 MiB and keeps all that was put aside.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let sink = SinkOptions::default();
        Self { path: path.into(), max_size: 100 << 20, max_backups: 0, max_age: 0, sink }
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
            options = LogOptions { max_size: 0, ..LogOptions::new("/dev/stdout") };
        }
        let (file, size) = open(&options.path).await?;
        Ok(Self { options, file, size })
    }

    pub(super) async fn run(mut self, mut events: mpsc::Receiver<Noted>) {
        while let Some(batch) = super::batch(&mut events, BATCH).await {
            let written = self.write(batch.iter().map(|noted| &noted.text)).await;
            if let Err(error) = &written {
                tracing::error!(%error, "audit log cannot be written");
            }
            batch.into_iter().for_each(|noted| noted.done(written.is_ok()));
        }
    }

    async fn write(&mut self, batch: impl Iterator<Item = &Bytes>) -> io::Result<()> {
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
        let now = jiff::Timestamp::now();
        let name = |at: jiff::Timestamp| {
            let (stem, extension) = parts(path);
            let at = at.strftime("%Y-%m-%dT%H-%M-%S%.3f");
            path.with_file_name(format!("{stem}-{at}{extension}"))
        };
        tokio::fs::rename(path, name(now)).await?;
        (self.file, self.size) = open(path).await?;
        let LogOptions { max_backups, max_age, .. } = self.options;
        let mut old = self.backups().await?;
        old.sort_unstable();
        let excess = if max_backups > 0 { old.len().saturating_sub(max_backups) } else { 0 };
        // Their names are in the order of their times.
        let age = jiff::SignedDuration::from_hours(24 * i64::from(max_age));
        let oldest = now.checked_sub(age).ok().filter(|_| max_age > 0).map(name);
        let oldest = oldest.as_deref().and_then(std::path::Path::file_name);
        let aged =
            old.partition_point(|path| oldest.is_some_and(|end| path.file_name() < Some(end)));
        for gone in old.into_iter().take(excess.max(aged)) {
            tokio::fs::remove_file(gone).await?;
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
        std::fs::write(directory.path().join("audit-2020-01-01T00-00-00.000.log"), "")
            .expect("written");
        let options = LogOptions { max_size: 100, max_age: 7, ..LogOptions::new(&path) };
        let mut log = Log::open(options.clone()).await.expect("opens");
        let event = Bytes::from(format!("{{\"text\":\"{}\"}}", "x".repeat(100)));
        log.write([event].iter()).await.expect("written");
        let [one] = &log.backups().await.expect("listed")[..] else { panic!("the old one went") };
        assert!(!one.to_string_lossy().contains("audit-2020"));
        let options = LogOptions { max_backups: 2, ..options };
        let mut log = Log::open(options).await.expect("opens");
        for round in 0..5 {
            let event =
                Bytes::from(format!("{{\"round\":{round},\"text\":\"{}\"}}", "x".repeat(100)));
            log.write([event].iter()).await.expect("written");
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
