//! Sealing of values at rest: which keys are sealed, and with what.

use std::path::PathBuf;

/// Which values are sealed on disk, and where their key is kept.
#[derive(Debug, Clone)]
pub struct SealOptions {
    /// The key file, mode 0600; made on the first start. Keep it outside the
    /// data directory and its backups.
    pub key_file: PathBuf,
    /// Keys that start with one of these are sealed, such as
    /// `/registry/secrets/`.
    pub prefixes: Vec<String>,
}
