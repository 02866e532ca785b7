//! Server-side apply: which fields an object has, who manages them, and what applying makes of both (KEP-555).
//!
//! Pure functions over JSON and the field table. Refuses to know how objects are stored and which versions a kind has.
//!
//! [`Set`] is a set of fields, as `fieldsV1` holds it; [`Managed`] is `metadata.managedFields`; [`Writer`] says what
//! writing, by applying or otherwise, makes of both.

mod check;
mod collect;
mod compare;
mod element;
mod encode;
mod managed;
mod merge;
mod prune;
mod remove;
mod set;
mod shape;
mod write;

pub use check::check;
pub use collect::mentioned;
pub use compare::{Diff, compare};
pub use element::Element;
pub use managed::{Entry, Managed, Operation};
pub use merge::merge;
pub use remove::remove;
pub use set::{Path, Set, printed};
pub use write::{Applied, ApplyError, Conflict, Reset, Versions, Writer};

#[cfg(test)]
mod tests;
