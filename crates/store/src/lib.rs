//! The versioned key-value store under the API: a log of changes with one
//! monotonic revision, immutable snapshots, and watches.
//!
//! Knows keys and bytes. Refuses to know kinds, JSON, or why anybody stores
//! anything: what a caller wants to know about a value without parsing it again
//! travels beside it as a *note* of the caller's own type.
//!
//! # Shape
//!
//! * [`Store`] is what every backend offers; [`Embedded`] is the one that needs
//!   no server, [`Etcd`] the one that several servers share. Code above takes
//!   `Arc<dyn Store<N>>`.
//! * Reads are pointers: [`Store::snapshot`] is an immutable ordered map with
//!   its revision, and stays as it is for as long as it is held.
//! * Writes are [`Store::commit`]: guards, then writes, all or nothing, one
//!   revision. It returns when the change is as durable as was asked, is in the
//!   snapshot, and has been handed to watches.
//! * [`Store::watch`] continues from any revision of the last minutes, or says
//!   [`WatchError::Compacted`].
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use store::{Durability, Embedded, Expect, Guard, Options, Store, Write};
//!
//! let store = Embedded::open(Options::new("/var/lib/skiff/store"), |_key, value| value.len())?;
//! let key = store::Key::new("/registry/configmaps/default/settings");
//! let done = store
//!     .commit(
//!         vec![Guard::new(key.clone(), Expect::Absent)],
//!         vec![Write::put(key.clone(), "{}".into(), 2)],
//!         Durability::Durable,
//!     )
//!     .await?;
//! let mut watch = store.watch("/registry/configmaps/", done.revision)?;
//! let snapshot = store.snapshot();
//! for (key, record) in snapshot.range("/registry/configmaps/") {
//!     println!("{key} {} {}", record.modified, record.value.len());
//! }
//! let event = watch.next().await?;
//! # let _ = event; Ok(())
//! # }
//! ```

mod batch;
mod embedded;
mod error;
mod etcd;
mod hub;
mod key;
pub mod load;
mod record;
mod ring;
mod seal;
mod snapshot;
mod store;
mod watch;

pub use embedded::{Embedded, Options, Stats, Vfs};
pub use error::{CommitError, OpenError, ReadError, SealError, WatchError};
pub use etcd::{Etcd, EtcdOptions, EtcdTls, SharedRecords};
pub use key::Key;
pub use meta::Revision;
pub use record::{Committed, Durability, Event, Expect, Guard, Record, Write};
pub use seal::SealOptions;
pub use snapshot::{Range, Snapshot};
pub use store::{Pending, Store, Written};
pub use watch::Watch;
