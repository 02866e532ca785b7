//! Sealing of values at rest with AES-256-GCM: which keys are sealed, with
//! what, and the file that holds the sealing keys. Refuses to know what a value
//! means, and where sealed bytes are kept.
//!
//! A sealed value is the id of its sealing key (4 bytes), a random nonce (12
//! bytes), the ciphertext and a tag (16 bytes). The storage key is the
//! associated data: a sealed value that is moved to another storage key does
//! not open. Nonces are random, so a sealing key should be rotated before it
//! has sealed 2^32 values (NIST SP 800-38D, 8.3).

use std::{
    fmt::Write as _,
    fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};

use crate::SealError;

const ID_LENGTH: usize = 4;
const KEY_LENGTH: usize = 32;
/// A key file holds a few keys; anything larger is some other file.
const MAX_FILE: u64 = 64 << 10;
const HEADER: &str = "# Keys that seal values of the skiff store: the first seals, all of them \
                      unseal.\n# Without this file sealed values are lost. Keep a copy of it, \
                      apart from copies of the store.\n";

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

impl SealOptions {
    /// Makes the key file unless there is one: for keys that must be shared before the store is
    /// first opened.
    ///
    /// # Errors
    /// When a file is there and unusable, or cannot be written.
    pub fn make_key(&self) -> Result<(), SealError> {
        Sealer::open(self, || false).map(drop)
    }
}

/// Seals and unseals; holds the keys of one key file.
pub(crate) struct Sealer {
    path: PathBuf,
    prefixes: Vec<String>,
    /// The first one seals.
    keys: Vec<SealingKey>,
}

struct SealingKey {
    id: [u8; ID_LENGTH],
    bytes: [u8; KEY_LENGTH],
    cipher: RandomizedNonceKey,
}

impl SealingKey {
    fn new(id: [u8; ID_LENGTH], bytes: [u8; KEY_LENGTH]) -> Result<Self, SealError> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &bytes)
            .map_err(|_| SealError::Crypto("the key was refused"))?;
        Ok(Self { id, bytes, cipher })
    }

    fn random() -> Result<Self, SealError> {
        let (mut id, mut bytes) = ([0; ID_LENGTH], [0; KEY_LENGTH]);
        aws_lc_rs::rand::fill(&mut id)
            .and_then(|()| aws_lc_rs::rand::fill(&mut bytes))
            .map_err(|_| SealError::Crypto("no random numbers"))?;
        Self::new(id, bytes)
    }
}

impl Sealer {
    /// Reads the key file. If there is none, makes one, unless sealed values
    /// exist.
    pub(crate) fn open(
        options: &SealOptions,
        sealed_values_exist: impl FnOnce() -> bool,
    ) -> Result<Self, SealError> {
        let path = options.key_file.clone();
        let prefixes = options.prefixes.clone();
        match read(&path) {
            Ok(keys) => Ok(Self { path, prefixes, keys }),
            Err(SealError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
                if sealed_values_exist() {
                    return Err(SealError::Missing { path });
                }
                let keys = vec![SealingKey::random()?];
                write(&path, &keys)?;
                Ok(Self { path, prefixes, keys })
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the values of this storage key are sealed.
    pub(crate) fn covers(&self, key: &str) -> bool {
        self.prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()))
    }

    /// Seals a value under its storage key.
    pub(crate) fn seal(&self, key: &str, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let sealing = self.keys.first().ok_or(SealError::Crypto("the key file holds no key"))?;
        let mut body = value.to_vec();
        let nonce = sealing
            .cipher
            .seal_in_place_append_tag(Aad::from(key.as_bytes()), &mut body)
            .map_err(|_| SealError::Crypto("the value was refused"))?;
        let mut sealed = Vec::with_capacity(ID_LENGTH + NONCE_LEN + body.len());
        sealed.extend_from_slice(&sealing.id);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Unseals a value that was sealed under this storage key.
    pub(crate) fn unseal(&self, key: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let broken = || SealError::Broken { key: key.to_owned() };
        let (id, rest) = sealed.split_at_checked(ID_LENGTH).ok_or_else(broken)?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or_else(broken)?;
        let sealing = self.keys.iter().find(|candidate| candidate.id == id).ok_or_else(|| {
            SealError::Unknown { key: key.to_owned(), id: hex(id), path: self.path.clone() }
        })?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
        let mut body = body.to_vec();
        let length = sealing
            .cipher
            .open_in_place(nonce, Aad::from(key.as_bytes()), &mut body)
            .map_err(|_| broken())?
            .len();
        body.truncate(length);
        Ok(body)
    }

    /// Whether a sealed value was sealed with the key that seals now.
    pub(crate) fn is_current(&self, sealed: &[u8]) -> bool {
        self.keys.first().is_some_and(|current| sealed.starts_with(&current.id))
    }

    /// Puts a new key before the others, in the file first.
    pub(crate) fn add_key(&mut self) -> Result<(), SealError> {
        let mut key = SealingKey::random()?;
        while self.keys.iter().any(|known| known.id == key.id) {
            key = SealingKey::random()?;
        }
        self.keys.insert(0, key);
        let written = write(&self.path, &self.keys);
        if written.is_err() {
            self.keys.remove(0);
        }
        written
    }

    /// Drops every key but the current one, from the file first.
    pub(crate) fn forget_old_keys(&mut self) -> Result<(), SealError> {
        write(&self.path, self.keys.get(..1).unwrap_or_default())?;
        self.keys.truncate(1);
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

fn read(path: &Path) -> Result<Vec<SealingKey>, SealError> {
    let file = |source| SealError::File { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(file)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SealError::Exposed { path: path.to_owned(), mode });
    }
    if metadata.len() > MAX_FILE {
        return Err(SealError::Malformed { path: path.to_owned(), line: 1 });
    }
    let text = fs::read_to_string(path).map_err(file)?;
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let malformed = || SealError::Malformed { path: path.to_owned(), line: index + 1 };
        let (id, key) = line.split_once(' ').ok_or_else(malformed)?;
        let id = unhex(id).ok_or_else(malformed)?;
        let key = unhex(key).ok_or_else(malformed)?;
        keys.push(SealingKey::new(id, key)?);
    }
    if keys.is_empty() {
        return Err(SealError::Malformed { path: path.to_owned(), line: 1 });
    }
    Ok(keys)
}

/// Replaces the key file: afterwards it is the old one or the new one, on disk.
fn write(path: &Path, keys: &[SealingKey]) -> Result<(), SealError> {
    let mut text = HEADER.to_owned();
    for key in keys {
        let _ = writeln!(text, "{} {}", hex(&key.id), hex(&key.bytes));
    }
    let replace = || -> std::io::Result<()> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(directory)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let fresh = path.with_file_name(name);
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        fs::File::open(directory)?.sync_all()
    };
    replace().map_err(|source| SealError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(directory: &Path) -> Result<Sealer, SealError> {
        let options = SealOptions {
            key_file: directory.join("deeper/sealing.key"),
            prefixes: vec!["/registry/secrets/".into()],
        };
        Sealer::open(&options, || false)
    }

    #[test]
    fn opens_what_it_sealed_under_the_same_storage_key_only() {
        let directory = tempfile::tempdir().unwrap();
        let sealer = sealer(directory.path()).unwrap();
        assert!(sealer.covers("/registry/secrets/a/b") && !sealer.covers("/registry/secretsx"));
        let sealed = sealer.seal("/registry/secrets/a/b", b"hunter2").unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(sealer.unseal("/registry/secrets/a/b", &sealed).unwrap(), b"hunter2");
        let moved = sealer.unseal("/registry/secrets/a/c", &sealed);
        assert!(matches!(moved, Err(SealError::Broken { .. })));
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(sealer.unseal("/registry/secrets/a/b", &changed).is_err());
        assert!(sealer.unseal("/registry/secrets/a/b", &sealed[..10]).is_err());
    }

    #[test]
    fn rotation_keeps_old_keys_until_told_to_forget_them() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = sealer(directory.path()).unwrap();
        let old = first.seal("/k", b"v").unwrap();
        first.add_key().unwrap();
        assert!(!first.is_current(&old) && first.unseal("/k", &old).is_ok());

        let mut second = sealer(directory.path()).unwrap();
        let new = first.seal("/k", b"v").unwrap();
        assert!(second.is_current(&new), "the file says which key is current");
        assert_eq!(second.unseal("/k", &old).unwrap(), b"v");
        second.forget_old_keys().unwrap();
        let third = sealer(directory.path()).unwrap();
        assert!(matches!(third.unseal("/k", &old), Err(SealError::Unknown { .. })));
        assert_eq!(third.unseal("/k", &new).unwrap(), b"v");
    }

    #[test]
    fn refuses_key_files_that_are_exposed_malformed_or_missing() {
        let directory = tempfile::tempdir().unwrap();
        sealer(directory.path()).unwrap();
        let path = directory.path().join("deeper/sealing.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = sealer(directory.path()).err().unwrap();
        assert!(error.to_string().contains("chmod 600"), "{error}");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "# fine\nabc def\n").unwrap();
        assert!(matches!(sealer(directory.path()), Err(SealError::Malformed { line: 2, .. })));

        fs::remove_file(&path).unwrap();
        let options = SealOptions { key_file: path, prefixes: vec![] };
        assert!(matches!(Sealer::open(&options, || true), Err(SealError::Missing { .. })));
    }
}
