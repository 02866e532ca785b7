//! Encodings of API objects: media types, JSON and YAML, tables, partial metadata, watch frames.
//!
//! Works on objects as finished JSON bytes. Knows nothing of storage, and of HTTP only the values of the
//! headers `Accept` and `Content-Type`.
//!
//! - [`media`]: content negotiation.
//! - [`yaml`]: YAML to JSON and back.
//! - [`partial`]: `PartialObjectMetadata` and its list.
//! - [`protobuf`]: Kubernetes protobuf to JSON and back.
//! - [`table`](mod@table): `Table`, what `kubectl get` prints.
//! - [`frame`]: one event of a watch.
//! - [`gnostic`]: OpenAPI documents as protobuf.

pub mod frame;
pub mod gnostic;
pub mod media;
pub mod partial;
pub mod protobuf;
pub mod table;
pub mod yaml;

pub use media::{Accepted, BodyFormat, Encoding, Form, MetaVersion, Offer};
pub use partial::ListMeta;
