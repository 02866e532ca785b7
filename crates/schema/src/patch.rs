//! The three kinds of patches that clients send: RFC 6902, RFC 7386 and strategic merge.
//!
//! Pure functions over JSON. Refuses to know where objects come from; decoding the outcome is the caller's.

mod json;
mod lists;
mod merge;
mod strategic;

pub use json::{MOST_OPERATIONS, json_patch};
pub use merge::merge_patch;
pub use strategic::strategic_merge_patch;

/// Why a patch was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is wrong: 400 `BadRequest`.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not apply to this object: 422 with this text as its cause.
    #[error("{0}")]
    Failed(String),
    /// More operations than [`MOST_OPERATIONS`]: 413.
    #[error("The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {0}")]
    TooMany(usize),
}
