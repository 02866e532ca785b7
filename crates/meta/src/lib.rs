//! The words every other crate speaks: names, kinds and resources, labels and
//! selectors, quantities, revisions, conditions, owner references, field errors
//! and the `Status` the API answers with.
//!
//! Everything here is pure: no I/O, no clock, and no knowledge of any particular kind.

pub mod conditions;
pub mod field;
pub mod fields;
pub mod int_or_string;
pub mod kind;
pub mod labels;
pub mod names;
pub mod owner;
pub mod quantity;
mod quote;
pub mod revision;
pub mod status;
pub mod time;

pub use field::{FieldError, FieldErrorKind, FieldErrors, FieldPath};
pub use fields::FieldSelector;
pub use kind::{GroupResource, GroupVersionKind, GroupVersionResource};
pub use labels::{Operator, Requirement, Selector};
pub use owner::OwnerReference;
pub use quantity::Quantity;
pub use quote::quote;
pub use revision::Revision;
pub use status::{Status, StatusCause, StatusDetails};
