//! How keys and values of the store are written in etcd, and read back.
//!
//! A value in etcd is one byte that tells whether it is sealed, the id of the
//! write that stored it (16 bytes), and the value itself or its sealed form. The
//! id is unique among all writes of all servers: by it a server finds out
//! whether a write took place whose answer it did not get.
//!
//! Keys of the store begin with `/` and stand behind the prefix. What servers
//! agree on beside the store's content stands behind `<prefix>-meta/`.

use bytes::{BufMut, Bytes, BytesMut};

use super::proto::KeyValue;
use crate::{Key, OpenError, Record, Revision, SealError, seal::Sealer};

const PLAIN: u8 = 1;
const SEALED: u8 = 2;
const ID: usize = 16;

/// Names one write among all of all servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct WriteId(pub(super) u128);

impl WriteId {
    /// Reads the id that a value in etcd begins with.
    pub(super) fn of(stored: &[u8]) -> Option<Self> {
        let bytes: [u8; ID] = stored.get(1..=ID)?.try_into().ok()?;
        Some(Self(u128::from_be_bytes(bytes)))
    }

    /// A value in etcd that is nothing but the id.
    pub(super) fn mark(self) -> Bytes {
        frame(PLAIN, self, &[])
    }
}

fn frame(kind: u8, id: WriteId, value: &[u8]) -> Bytes {
    let mut stored = BytesMut::with_capacity(1 + ID + value.len());
    stored.put_u8(kind);
    stored.put_u128(id.0);
    stored.put_slice(value);
    stored.freeze()
}

/// Why a value from etcd cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodingError {
    #[error("{0} in etcd was not written by skiff")]
    Foreign(String),
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl From<CodingError> for OpenError {
    fn from(error: CodingError) -> Self {
        match error {
            CodingError::Foreign(_) => Self::Unreachable(error.to_string()),
            CodingError::Seal(error) => Self::Seal(error),
        }
    }
}

type NoteOf<N> = Box<dyn Fn(&Key, &Bytes) -> N + Send + Sync>;

/// Translates between the store and etcd.
pub(super) struct Coding<N> {
    prefix: String,
    sealer: Option<Sealer>,
    note: NoteOf<N>,
}

impl<N> Coding<N> {
    pub(super) fn new(prefix: &str, sealer: Option<Sealer>, note: NoteOf<N>) -> Self {
        Self { prefix: prefix.to_owned(), sealer, note }
    }

    /// The key in etcd of a key of the store.
    pub(super) fn etcd_key(&self, key: &str) -> Bytes {
        [self.prefix.as_bytes(), key.as_bytes()].concat().into()
    }

    /// The first key in etcd that begins with a key of the store, and the first
    /// after those.
    pub(super) fn range(&self, prefix: &str) -> (Bytes, Bytes) {
        let start = self.etcd_key(prefix);
        let mut end = start.to_vec();
        if let Some(last) = end.last_mut() {
            // Keys end in `/` or in text; no byte of either is the last.
            *last += 1;
        }
        (start, end.into())
    }

    /// The key of the store that a key in etcd stands for, if it is one.
    pub(super) fn store_key(&self, key: &[u8]) -> Option<Key> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?;
        let text = std::str::from_utf8(rest).ok()?;
        text.starts_with('/').then(|| Key::from(text))
    }

    pub(super) fn encode(&self, key: &Key, value: &Bytes, id: WriteId) -> Result<Bytes, SealError> {
        match &self.sealer {
            Some(sealer) if sealer.covers(key) => Ok(frame(SEALED, id, &sealer.seal(key, value)?)),
            _ => Ok(frame(PLAIN, id, value)),
        }
    }

    /// The record that a key holds. Its bytes are an allocation of their own.
    pub(super) fn record(&self, key: &Key, stored: &KeyValue) -> Result<Record<N>, CodingError> {
        let foreign = || CodingError::Foreign(key.to_string());
        let value = stored.value.get(1 + ID..).ok_or_else(foreign)?;
        let value = match (stored.value.first(), &self.sealer) {
            (Some(&PLAIN), _) => Bytes::copy_from_slice(value),
            (Some(&SEALED), Some(sealer)) => sealer.unseal(key, value)?.into(),
            (Some(&SEALED), None) => return Err(SealError::Unconfigured.into()),
            _ => return Err(foreign()),
        };
        let note = self.note(key, &value);
        Ok(Record {
            note,
            value,
            created: revision(stored.create_revision),
            modified: revision(stored.mod_revision),
        })
    }

    pub(super) fn note(&self, key: &Key, value: &Bytes) -> N {
        (self.note)(key, value)
    }
}

/// The key in etcd of something that the servers agree on.
pub(super) fn meta_key(prefix: &str, name: &str) -> Bytes {
    format!("{prefix}-meta/{name}").into()
}

/// A revision of etcd as one of the store; they are the same number.
pub(super) fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

/// A revision of the store as one of etcd.
pub(super) fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coding() -> Coding<usize> {
        Coding::new("/skiff", None, Box::new(|_, value| value.len()))
    }

    #[test]
    fn keys_and_values_come_back() {
        let (coding, key) = (coding(), Key::new("/registry/a"));
        let id = WriteId(7 << 100);
        let value = coding.encode(&key, &Bytes::from_static(b"text"), id).unwrap();
        let stored = KeyValue {
            key: coding.etcd_key(&key),
            create_revision: 3,
            mod_revision: 4,
            version: 2,
            value,
        };
        assert_eq!(WriteId::of(&stored.value), Some(id));
        assert_eq!(coding.store_key(&stored.key).as_ref(), Some(&key));
        let record = coding.record(&key, &stored).unwrap();
        assert_eq!((&record.value[..], record.note), (&b"text"[..], 4));
        assert_eq!((record.created, record.modified), (Revision(3), Revision(4)));
        for rubbish in [&b""[..], b"{\"kind\":\"Pod\"}", &[2; 40]] {
            let stored = KeyValue { value: Bytes::copy_from_slice(rubbish), ..stored.clone() };
            assert!(coding.record(&key, &stored).is_err());
        }
    }

    #[test]
    fn only_keys_behind_the_prefix_are_the_stores() {
        let coding = coding();
        for other in ["/skiff", "/skiff-meta/fence", "/skiffs/x", "/other/skiff/x"] {
            assert_eq!(coding.store_key(other.as_bytes()), None, "{other}");
        }
        assert_eq!(coding.range("/a/"), ("/skiff/a/".into(), "/skiff/a0".into()));
    }
}
