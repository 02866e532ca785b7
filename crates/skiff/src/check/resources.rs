//! Questions about ports and disks.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use super::{Finding, Verdict};

/// Below this, images and logs will fill the disk soon.
const COMFORTABLE_SPACE: u64 = 2 << 30;

pub(super) fn port(port: u16) -> Finding {
    let verdict = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => Verdict::Good(format!("{port} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Verdict::Bad(format!(
            "port {port} is taken by another process: stop that (see `ss -ltnp`), or choose another port"
        )),
        Err(error) => Verdict::Bad(format!("port {port} cannot be listened on: {error}")),
    };
    Finding { what: "port", verdict }
}

pub(super) fn data_directory(path: &Path) -> Finding {
    let verdict = match probe(path) {
        Ok(()) => Verdict::Good(path.display().to_string()),
        Err(error) => Verdict::Bad(format!(
            "{} cannot be written to ({error}): mend its rights, or choose another with --data-dir",
            path.display()
        )),
    };
    Finding { what: "data directory", verdict }
}

fn probe(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path)?;
    let file = path.join(format!(".probe-{}", std::process::id()));
    std::fs::write(&file, b"skiff")?;
    std::fs::remove_file(&file)
}

pub(super) fn space(path: &Path) -> Finding {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let verdict = match nix::sys::statvfs::statvfs(existing) {
        Err(error) => {
            Verdict::Poor(format!("the free space of {} is unknown: {error}", existing.display()))
        }
        Ok(found) => {
            let free = found.blocks_available() * found.fragment_size();
            let text = format!("{:.1} GiB free", free as f64 / f64::from(1 << 30));
            if free < COMFORTABLE_SPACE {
                Verdict::Poor(format!(
                    "{text} at {}: images and logs need more",
                    existing.display()
                ))
            } else {
                Verdict::Good(text)
            }
        }
    };
    Finding { what: "disk", verdict }
}
