//! Signals as bytes on a socket, and the few other calls the standard library lacks.

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const SIG_IGN: usize = 1;
const TIOCGWINSZ: u64 = 0x5413;

static WRITE_END: AtomicI32 = AtomicI32::new(-1);

#[expect(unsafe_code, reason = "the C library is the only way to these system calls")]
mod c {
    unsafe extern "C" {
        pub(super) fn signal(number: i32, handler: usize) -> usize;
        pub(super) fn write(fd: i32, bytes: *const u8, count: usize) -> isize;
        pub(super) fn ioctl(fd: i32, request: u64, ...) -> i32;
    }
}

#[expect(unsafe_code, reason = "write(2) of one static byte is safe in a signal handler")]
extern "C" fn on_signal(_number: i32) {
    let byte = 1_u8;
    // SAFETY: the pointer is valid for one byte; a bad descriptor only makes write fail.
    let _ = unsafe { c::write(WRITE_END.load(Ordering::Relaxed), &raw const byte, 1) };
}

#[expect(unsafe_code, reason = "setting a signal's disposition")]
fn set(number: i32, handler: usize) {
    // SAFETY: `handler` is SIG_IGN or a function of the right signature that only writes a byte.
    unsafe { c::signal(number, handler) };
}

/// A stream that becomes readable at SIGTERM or SIGINT. As process 1 of a container the
/// defaults would ignore both. Children that end are reaped by the kernel.
pub(crate) fn termination() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    write.set_nonblocking(true)?;
    WRITE_END.store(write.into_raw_fd(), Ordering::Relaxed);
    set(SIGTERM, on_signal as *const () as usize);
    set(SIGINT, on_signal as *const () as usize);
    set(SIGCHLD, SIG_IGN);
    Ok(read)
}

/// Ignores SIGTERM and SIGINT: only SIGKILL ends the process.
pub(crate) fn ignore_termination() {
    set(SIGTERM, SIG_IGN);
    set(SIGINT, SIG_IGN);
}

/// Rows and columns of the terminal on `stream`.
#[expect(unsafe_code, reason = "asking the terminal for its size")]
pub(crate) fn terminal_size(stream: &impl AsRawFd) -> Option<(u16, u16)> {
    let mut size = [0_u16; 4];
    // SAFETY: the kernel writes four 16-bit numbers, which is what `size` holds.
    let result = unsafe { c::ioctl(stream.as_raw_fd(), TIOCGWINSZ, size.as_mut_ptr()) };
    (result == 0).then_some((size[0], size[1]))
}
