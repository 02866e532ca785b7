//! What built-in kinds look like: the graph of their types, decoding, defaulting, validation and patches.
//!
//! Everything is a pure function over `serde_json::Value`. Knows nothing of storage or HTTP.
//!
//! - [`amounts`]: what pods ask for, summed.
//! - [`quota`]: what objects use of quotas.
//! - [`apply`]: server-side apply and managed fields.
//! - [`types`]: the compiled-in graph of types, by name or by group, version and kind.
//! - [`decode`](mod@decode): JSON to objects, with Kubernetes' checks and messages.
//! - [`openapi`]: OpenAPI v3 documents.
//! - [`patch`]: JSON patch, merge patch, strategic merge patch.
//! - [`rules`]: defaulting, preparation and validation of each kind.
//! - [`view`]: reading JSON objects with Go's zero values.

pub mod amounts;
pub mod apply;
pub mod decode;
pub mod openapi;
pub mod patch;
pub mod quota;
pub mod rules;
mod scalar;
pub mod types;
pub mod view;

pub use decode::{DecodeError, Decoded, FieldValidation, decode, decode_value};
pub use patch::{PatchError, json_patch, merge_patch, strategic_merge_patch};
pub use view::View;
