//! SPDY/3.1 as Kubernetes clients and container runtimes speak it: streams with headers, without
//! flow control of their own (their implementation neither sends nor honours window updates), so
//! that TCP's back-pressure holds for the whole connection.
//!
//! Source: the SPDY protocol draft 3.1.

mod connection;
mod frame;
mod headers;

pub use connection::{Connection, Opener, Stream, StreamReader, StreamWriter};
pub use headers::Headers;
