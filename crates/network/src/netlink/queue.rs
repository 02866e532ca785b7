//! Queues that slow a device down: token buckets (tc-tbf(8)).
//!
//! Knows the kernel's structures and nothing of pods.

use nix::{errno::Errno, libc};

use super::{Message, NetlinkError, Socket};

const REPLACE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;

/// `TC_H_ROOT` of linux/pkt_sched.h, and a handle for the queue there.
const ROOT: u32 = 0xffff_ffff;
const HANDLE: u32 = 0x1_0000;
/// `TCA_KIND` and `TCA_OPTIONS`.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
/// Attributes of tbf (linux/pkt_sched.h).
const PARAMETERS: u16 = 1;
const RATE64: u16 = 4;
const BURST: u16 = 6;
/// `TC_LINKLAYER_ETHERNET`: the kernel computes times itself, no table is passed.
const ETHERNET: u8 = 1;

/// The largest packet that is handed to a device in one piece, in bytes.
const LARGEST_PACKET: u64 = 64 * 1024;

/// How much a device may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Bytes a second.
    pub(crate) rate: u64,
    /// Bytes at once.
    pub(crate) burst: u32,
    /// Bytes that wait at most.
    pub(crate) limit: u32,
}

impl Bucket {
    /// A bucket for so many bits a second: 20 ms of it at once, 50 ms more may wait.
    pub(crate) fn of(bits: u64) -> Self {
        let rate = (bits / 8).max(1);
        let within = |milliseconds: u64| {
            let bytes = rate.saturating_mul(milliseconds) / 1000;
            u32::try_from(bytes.max(LARGEST_PACKET)).unwrap_or(u32::MAX)
        };
        let burst = within(20);
        Self { rate, burst, limit: burst.saturating_add(within(50)) }
    }
}

fn request(index: u32) -> Message {
    Message::new(libc::RTM_NEWQDISC, REPLACE)
        .fixed(&[0; 4])
        .fixed(&index.to_ne_bytes())
        .fixed(&HANDLE.to_ne_bytes())
        .fixed(&ROOT.to_ne_bytes())
        .fixed(&[0; 4])
        .string(KIND, "tbf")
}

/// Limits what a device sends; an earlier limit is replaced. Says whether the kernel can.
pub(crate) fn limit(socket: &mut Socket, index: u32, bucket: Bucket) -> Result<bool, NetlinkError> {
    let rate = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
    let specification = |rate: u32| {
        let mut bytes = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
        bytes.extend(rate.to_ne_bytes());
        bytes
    };
    let mut parameters = specification(rate);
    parameters.extend(specification(0));
    parameters.extend(bucket.limit.to_ne_bytes());
    parameters.extend([0; 8]);
    let request = request(index).nested(OPTIONS, |options| {
        options
            .attribute(PARAMETERS, &parameters)
            .attribute(RATE64, &bucket.rate.to_ne_bytes())
            .number(BURST, bucket.burst)
    });
    match socket.call(&format!("limit what device {index} sends"), request) {
        Ok(()) => Ok(true),
        Err(NetlinkError { errno: Errno::ENOENT | Errno::EOPNOTSUPP, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the kernel can limit what a device sends. Asked with a request that lacks what it
/// needs, so that nothing changes.
pub(crate) fn can_limit(socket: &mut Socket, index: u32) -> bool {
    match socket.call("ask for tbf", request(index)) {
        Err(error) => !matches!(error.errno, Errno::ENOENT | Errno::EOPNOTSUPP),
        Ok(()) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_at_least_a_packet() {
        let bucket = Bucket::of(1_000_000_000);
        assert_eq!((bucket.rate, bucket.burst), (125_000_000, 2_500_000));
        assert_eq!(bucket.limit, 2_500_000 + 6_250_000);
        assert_eq!(Bucket::of(1_000).burst, 65_536);
        assert_eq!(Bucket::of(0).rate, 1);
        assert_eq!(Bucket::of(u64::MAX).limit, u32::MAX);
    }
}
