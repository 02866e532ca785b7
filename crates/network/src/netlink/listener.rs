//! A socket on which the kernel tells what happens, unasked.
//!
//! Owns its buffer, and that nothing which was lost goes unnoticed. Knows nothing of what is told.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv,
        setsockopt, socket, sockopt,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{RECEIVE_BYTES, Reply, message};

/// Room for notifications that wait to be read, in bytes: a change of all Services, or of all
/// nodes, is told in one go.
const ROOM: usize = 4 << 20;
/// Datagrams read at a time, so that who floods us does not keep us from answering.
const AT_ONCE: usize = 1024;

/// What the kernel says.
pub(super) enum Told<'a> {
    Message(&'a Reply),
    /// Notifications were lost: anything may have happened.
    Lost,
}

/// Listens to groups of notifications.
#[derive(Debug)]
pub(super) struct Listener(AsyncFd<OwnedFd>);

impl Listener {
    /// Listens from now on, in the calling thread's network namespace; group number n is bit n - 1.
    pub(super) fn open(protocol: SockProtocol, groups: u32) -> Result<Self, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        // Without the right to it the kernel's own size has to do: what is lost is told.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &ROOM);
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        register(fd).map(Self)
    }

    /// Waits until something is told, and takes in what there is.
    pub(super) async fn next(&self, mut take: impl FnMut(Told<'_>)) -> Result<(), Errno> {
        let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
        let mut guard = self.0.readable().await.map_err(errno)?;
        if read(guard.get_inner().as_raw_fd(), AT_ONCE, &mut take)? {
            guard.clear_ready();
        }
        Ok(())
    }

    /// Takes in everything that has been told so far.
    pub(super) fn so_far(&self, mut take: impl FnMut(Told<'_>)) -> Result<(), Errno> {
        read(self.0.get_ref().as_raw_fd(), usize::MAX, &mut take).map(drop)
    }
}

/// Reads so many datagrams at most; whether nothing waits any more.
fn read(fd: RawFd, most: usize, take: &mut dyn FnMut(Told<'_>)) -> Result<bool, Errno> {
    let mut buffer = vec![0; RECEIVE_BYTES];
    for _ in 0..most {
        match recv(fd, &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                message::split(&buffer[..length]).iter().for_each(|one| take(Told::Message(one)));
            }
            Err(Errno::EINTR) => {}
            Err(Errno::ENOBUFS) => take(Told::Lost),
            Err(Errno::EAGAIN) => return Ok(true),
            Err(errno) => return Err(errno),
        }
    }
    Ok(false)
}

#[expect(unsafe_code, reason = "the runtime polls a descriptor of the kernel")]
fn register(fd: OwnedFd) -> nix::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the result, and neither replaced nor closed before it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    registered.map_err(|error| {
        let (_, error) = error.into_parts();
        Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
    })
}
