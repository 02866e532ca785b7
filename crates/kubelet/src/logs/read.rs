//! Reading a container's log: from the end or from a moment on, with a limit, and following it as it grows.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::line::Line;

/// Longest line taken as one piece, bytes. The runtime cuts at 16 KiB.
const LONGEST: u64 = 1 << 20;
/// Size of the pieces handed on.
const PIECE: usize = 32 << 10;
/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Size of the blocks in which a file is searched backwards.
const BLOCK: u64 = 64 << 10;

/// What is wanted of a log.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogRequest {
    /// The file.
    pub(crate) path: PathBuf,
    /// Go on as it grows.
    pub(crate) follow: bool,
    /// Only the last lines.
    pub(crate) tail: Option<u64>,
    /// Only what was written at or after this moment.
    pub(crate) since: Option<Timestamp>,
    /// Put each line's time before it.
    pub(crate) timestamps: bool,
    /// Stop after so many bytes.
    pub(crate) limit: Option<u64>,
    /// Only `Stdout` or `Stderr`.
    pub(crate) stream: Option<String>,
}

/// Reads on a blocking thread into `out` until the log or the reader ends. `running` tells whether the log may still
/// grow.
pub(crate) fn read(
    request: &LogRequest,
    out: &mpsc::Sender<Result<Bytes, io::Error>>,
    running: impl Fn() -> bool,
) -> io::Result<()> {
    let mut file = File::open(&request.path)?;
    if let Some(tail) = request.tail {
        seek_to_tail(&mut file, tail)?;
    }
    let mut reader = BufReader::new(file);
    let mut writer = Writer { out, piece: Vec::with_capacity(PIECE), left: request.limit };
    let mut line = Vec::new();
    loop {
        let complete = next_line(&mut reader, &mut line)?;
        if complete {
            let keep = Line::parse(&line).filter(|l| wanted(request, l));
            if let Some(parsed) = keep
                && !writer.write(request, &parsed)
            {
                return Ok(());
            }
            line.clear();
            continue;
        }
        if !writer.flush() {
            return Ok(());
        }
        // Asked before looking again: what was written before the end is seen.
        let may_grow = request.follow && running();
        if let Some(next) = rotated(&request.path, reader.get_ref()) {
            reader = BufReader::new(next);
            line.clear();
            continue;
        }
        if !may_grow {
            if !next_line(&mut reader, &mut line)? {
                return Ok(());
            }
            let keep = Line::parse(&line).filter(|l| wanted(request, l));
            if let Some(parsed) = keep
                && !writer.write(request, &parsed)
            {
                return Ok(());
            }
            line.clear();
            continue;
        }
        if out.is_closed() {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}

/// Appends to `line`; `true` once it is whole.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    reader.take(LONGEST).read_until(b'\n', line)?;
    Ok(line.ends_with(b"\n") || line.len() as u64 >= LONGEST)
}

fn wanted(request: &LogRequest, line: &Line<'_>) -> bool {
    let stream = match request.stream.as_deref() {
        Some("Stdout") => line.stream == b"stdout",
        Some("Stderr") => line.stream == b"stderr",
        _ => true,
    };
    stream && request.since.is_none_or(|since| line.at().is_none_or(|at| at >= since))
}

/// The file that is now at `path`, if it is another one than is being read and that one is read to its end.
fn rotated(path: &Path, open: &File) -> Option<File> {
    let now = std::fs::metadata(path).ok()?;
    let then = open.metadata().ok()?;
    (now.ino() != then.ino()).then(|| File::open(path).ok()).flatten()
}

struct Writer<'a> {
    out: &'a mpsc::Sender<Result<Bytes, io::Error>>,
    piece: Vec<u8>,
    left: Option<u64>,
}

impl Writer<'_> {
    /// Adds a line; `false` when nothing more is wanted.
    fn write(&mut self, request: &LogRequest, line: &Line<'_>) -> bool {
        let start = self.piece.len();
        if request.timestamps {
            self.piece.extend_from_slice(line.time);
            self.piece.push(b' ');
        }
        self.piece.extend_from_slice(line.text);
        if !line.partial {
            self.piece.push(b'\n');
        }
        if let Some(left) = &mut self.left {
            let added = (self.piece.len() - start) as u64;
            if added >= *left {
                self.piece.truncate(start + usize::try_from(*left).unwrap_or(0));
                self.flush();
                return false;
            }
            *left -= added;
        }
        self.piece.len() < PIECE || self.flush()
    }

    /// Hands on what has gathered; `false` when nobody reads any more.
    fn flush(&mut self) -> bool {
        if self.piece.is_empty() {
            return !self.out.is_closed();
        }
        let piece = Bytes::from(std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE)));
        self.out.blocking_send(Ok(piece)).is_ok()
    }
}

/// Moves to the beginning of the last `lines` lines.
fn seek_to_tail(file: &mut File, lines: u64) -> io::Result<()> {
    let size = file.metadata()?.len();
    if lines == 0 {
        file.seek(SeekFrom::Start(size))?;
        return Ok(());
    }
    let mut end = size;
    // The last line's own end does not begin another line.
    let mut wanted = lines + 1;
    let mut block = vec![0; BLOCK as usize];
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if end == size && part.last() != Some(&b'\n') {
            wanted -= 1;
        }
        for (index, _) in part.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            wanted -= 1;
            if wanted == 0 {
                file.seek(SeekFrom::Start(start + index as u64 + 1))?;
                return Ok(());
            }
        }
        end = start;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(())
}

/// The text at the end of a log: at most so many bytes and lines. Empty when it cannot be read.
pub(crate) fn tail_text(path: &Path, bytes: usize, lines: usize) -> String {
    let Ok(mut file) = File::open(path) else { return String::new() };
    if seek_to_tail(&mut file, lines as u64).is_err() {
        return String::new();
    }
    let mut raw = Vec::new();
    // Generous: every line carries some 45 bytes of its own.
    let cap = (bytes + lines * 64) as u64;
    let position = file.stream_position().unwrap_or(0);
    let size = file.metadata().map_or(0, |m| m.len());
    if size - position.min(size) > cap && file.seek(SeekFrom::Start(size - cap)).is_err() {
        return String::new();
    }
    if file.take(cap).read_to_end(&mut raw).is_err() {
        return String::new();
    }
    let mut text = Vec::new();
    for line in raw.split_inclusive(|b| *b == b'\n').filter_map(Line::parse) {
        text.extend_from_slice(line.text);
        if !line.partial {
            text.push(b'\n');
        }
    }
    let start = text.len().saturating_sub(bytes);
    String::from_utf8_lossy(&text[start..]).into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn log(lines: &[&str]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for (index, line) in lines.iter().enumerate() {
            writeln!(file, "2026-01-01T00:00:{index:02}Z stdout F {line}").unwrap();
        }
        file
    }

    fn run(request: &LogRequest) -> String {
        let (out, mut input) = mpsc::channel(64);
        read(request, &out, || false).unwrap();
        drop(out);
        let mut text = Vec::new();
        while let Ok(piece) = input.try_recv() {
            text.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn tail_since_limit_timestamps() {
        let file = log(&["a", "b", "c", "d"]);
        let base = LogRequest { path: file.path().to_owned(), ..Default::default() };
        assert_eq!(run(&base), "a\nb\nc\nd\n");
        assert_eq!(run(&LogRequest { tail: Some(2), ..base.clone() }), "c\nd\n");
        assert_eq!(run(&LogRequest { tail: Some(0), ..base.clone() }), "");
        assert_eq!(run(&LogRequest { tail: Some(99), ..base.clone() }), "a\nb\nc\nd\n");
        let since = "2026-01-01T00:00:02Z".parse().ok();
        assert_eq!(run(&LogRequest { since, ..base.clone() }), "c\nd\n");
        assert_eq!(run(&LogRequest { limit: Some(3), ..base.clone() }), "a\nb");
        let stamped = run(&LogRequest { timestamps: true, tail: Some(1), ..base });
        assert_eq!(stamped, "2026-01-01T00:00:03Z d\n");
        assert_eq!(tail_text(file.path(), 4, 80), "c\nd\n");
    }
}
