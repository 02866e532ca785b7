//! Container log files: reading them in the CRI's line format, following them, rotating them. Knows nothing of HTTP.

mod line;
mod read;
mod rotate;

pub(crate) use read::{LogRequest, read, tail_text};
pub(crate) use rotate::rotate_forever;
