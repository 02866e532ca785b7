//! A reverse tunnel: a process that cannot be dialled opens one connection and serves HTTP/2 on it; the other side
//! asks it with `CONNECT host:port` to dial on its behalf.
//!
//! [`accept`] is the side that was dialled and asks, [`Agent`] the side that dialled and serves. Streams are bounded
//! in number, each has flow control of its own, and both sides ping, so that a dead peer is noticed in seconds.
//! Knows nothing of who may open a tunnel, nor of what may be reached through it: that is [`Dial`]'s to say.

mod agent;
mod link;

use std::time::Duration;

pub use agent::{Agent, AgentOptions, Dial};
pub use link::{ConnectError, Link, Offer, Tunnel, accept};

/// The protocol as it stands in `Upgrade` headers.
pub const PROTOCOL: &str = "skiff-tunnel/1";

/// How long a link may be silent before it is pinged.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// How long an answer to a ping may take before the link is given up.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams of one tunnel at once; more wait.
const STREAMS: u32 = 512;
/// What may be on its way on one stream, in bytes: its reader's pace is its writer's.
const STREAM_WINDOW: u32 = 128 * 1024;
/// What may be on its way on the whole link: as much as all streams together, so that one reader that has stopped
/// stops no other.
const LINK_WINDOW: u32 = STREAMS * STREAM_WINDOW;
