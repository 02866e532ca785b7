//! The resource engine: every built-in kind of Kubernetes served from one table of rows through
//! one pipeline of named stages, over any [`store::Store`].
//!
//! Owns rows, the write pipeline, reads, watches, strategies of built-in kinds and the allocation
//! of cluster IPs and node ports. Knows nothing of HTTP, authentication or authorization: a
//! [`Request`] arrives taken apart and permitted, an [`Outcome`] leaves as finished JSON.
//!
//! ```text
//! let rows = Arc::new(Rows::builtin());
//! let store = …open(…, registry::header_reader(rows.clone()))…;   // Store<Header>
//! let registry = Registry::new(store, rows, Options { admission: vec![…], ..Options::default() })?;
//! let answer = registry.execute(Request { row, namespace, name, action: Action::Get, … }).await;
//! ```
//!
//! The caller keeps to itself: rows without storage (reviews), the subresources log, exec, attach,
//! portforward, proxy and token (the engine answers 404 to them), and encodings other than JSON:
//! bodies arrive as JSON and answers leave as JSON. [`Registry::run`] must be running for node
//! watches to be cheap and events to expire.

mod actions;
mod admission;
mod allocate;
mod builtin;
mod convert;
mod delete;
mod expire;
mod frames;
mod header;
mod index;
mod object;
mod outcome;
mod params;
mod pipeline;
mod read;
mod registry;
mod request;
mod row;
mod selection;
mod strategy;
mod verb;
mod watch;

pub use admission::{Admit, Attributes, Measure, Operation, annotated};
pub use allocate::Network;
pub use header::{Header, header_reader};
pub use object::Object;
pub use outcome::{Answer, EventType, Identity, List, Outcome, WatchEvent, WatchStream};
pub use params::{FieldValidation, Params, Propagation, VersionMatch};
pub use registry::{Clock, Options, Registry, Size};
pub use request::{Action, PatchType, Request, UserInfo};
pub use row::{Durability, Row, Rows, Scope, Storage, Subresource};
pub use verb::{UnknownVerb, Verb};
