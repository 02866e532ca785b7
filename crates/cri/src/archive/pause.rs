//! The program that holds a pod's namespaces: a static ELF executable, written here instruction by instruction so that
//! skiff needs neither an image from elsewhere nor a second toolchain.
//!
//! What it does:
//!
//! ```text
//! rt_sigaction(SIGCHLD, SIG_IGN)             children that end are reaped by the kernel
//! rt_sigprocmask(SIG_BLOCK, TERM | INT)      the first process of a namespace never receives
//!                                            a signal it has no handler for; a blocked one waits
//! do r = rt_sigtimedwait(TERM | INT) while r <= 0
//! exit_group(0)
//! ```

use super::Architecture;

/// Where the one segment is loaded; a multiple of every page size.
const BASE: u32 = 0x40_0000;
const SEGMENT_ALIGN: u64 = 0x1_0000;
const ELF_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const CODE: usize = ELF_HEADER + 2 * PROGRAM_HEADER;

const SIGINT: u32 = 2;
const SIGTERM: u32 = 15;
const SIGCHLD: u32 = 17;
const SIG_BLOCK: u32 = 0;
/// Bytes of a kernel signal set.
const SET_SIZE: u32 = 8;

/// The executable for `architecture`.
pub fn program(architecture: Architecture) -> Vec<u8> {
    let code_length = code(architecture, 0, 0).len();
    // Data follow the code: a signal set, then a `struct sigaction` of handler, flags, restorer and mask.
    let data = (CODE + code_length).next_multiple_of(8);
    let set: u64 = 1 << (SIGTERM - 1) | 1 << (SIGINT - 1);
    let sig_ign: u64 = 1;
    let address = |offset: usize| BASE + u32::try_from(offset).expect("a few hundred bytes");
    let mut file = headers(architecture, data + 40);
    file.extend(code(architecture, address(data), address(data + 8)));
    file.resize(data, 0);
    for word in [set, sig_ign, 0, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    file
}

fn headers(architecture: Architecture, size: usize) -> Vec<u8> {
    const EXECUTABLE: u16 = 2;
    const LOAD: u32 = 1;
    const STACK: u32 = 0x6474_e551;
    const READ_EXECUTE: u32 = 5;
    const READ_WRITE: u32 = 6;
    let machine: u16 = match architecture {
        Architecture::Amd64 => 62,
        Architecture::Arm64 => 183,
    };
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend(EXECUTABLE.to_le_bytes());
    out.extend(machine.to_le_bytes());
    out.extend(1_u32.to_le_bytes());
    out.extend((u64::from(BASE) + CODE as u64).to_le_bytes());
    out.extend((ELF_HEADER as u64).to_le_bytes());
    out.extend(0_u64.to_le_bytes());
    out.extend(0_u32.to_le_bytes());
    for half in [ELF_HEADER, PROGRAM_HEADER, 2, 64, 0, 0] {
        out.extend(u16::try_from(half).expect("small constants").to_le_bytes());
    }
    let mut segment = |kind: u32, flags: u32, address: u64, size: u64, align: u64| {
        out.extend(kind.to_le_bytes());
        out.extend(flags.to_le_bytes());
        for word in [0, address, address, size, size, align] {
            out.extend(word.to_le_bytes());
        }
    };
    segment(LOAD, READ_EXECUTE, u64::from(BASE), size as u64, SEGMENT_ALIGN);
    segment(STACK, READ_WRITE, 0, 0, 16);
    out
}

/// The instructions, given the addresses of the signal set and of the action.
fn code(architecture: Architecture, set: u32, action: u32) -> Vec<u8> {
    match architecture {
        Architecture::Amd64 => {
            let mut asm = Amd64::default();
            asm.call(13, [SIGCHLD, action, 0, SET_SIZE]);
            asm.call(14, [SIG_BLOCK, set, 0, SET_SIZE]);
            let again = asm.0.len();
            asm.call(128, [set, 0, 0, SET_SIZE]);
            asm.jump_unless_positive(again);
            asm.call(231, [0; 4]);
            asm.0
        }
        Architecture::Arm64 => {
            let mut asm = Arm64::default();
            asm.call(134, [SIGCHLD, action, 0, SET_SIZE]);
            asm.call(135, [SIG_BLOCK, set, 0, SET_SIZE]);
            let again = asm.0.len();
            asm.call(137, [set, 0, 0, SET_SIZE]);
            asm.jump_unless_positive(again);
            asm.call(94, [0; 4]);
            asm.0
        }
    }
}

#[derive(Default)]
struct Amd64(Vec<u8>);

impl Amd64 {
    /// `mov` of the arguments into edi, esi, edx, r10d and of the number into eax; `syscall`.
    fn call(&mut self, number: u32, arguments: [u32; 4]) {
        let moves: [&[u8]; 4] = [&[0xbf], &[0xbe], &[0xba], &[0x41, 0xba]];
        for (opcode, argument) in moves.into_iter().zip(arguments) {
            self.0.extend(opcode);
            self.0.extend(argument.to_le_bytes());
        }
        self.0.push(0xb8);
        self.0.extend(number.to_le_bytes());
        self.0.extend([0x0f, 0x05]);
    }

    /// `test eax, eax`; `jle target`.
    fn jump_unless_positive(&mut self, target: usize) {
        self.0.extend([0x85, 0xc0, 0x7e]);
        let back = self.0.len() + 1 - target;
        self.0.push((-i8::try_from(back).expect("a short loop")).to_le_bytes()[0]);
    }
}

#[derive(Default)]
struct Arm64(Vec<u8>);

impl Arm64 {
    fn put(&mut self, instruction: u32) {
        self.0.extend(instruction.to_le_bytes());
    }

    /// `movz` and `movk` of the low and high half into a register.
    fn load(&mut self, register: u32, value: u32) {
        self.put(0xd280_0000 | (value & 0xffff) << 5 | register);
        self.put(0xf2a0_0000 | (value >> 16) << 5 | register);
    }

    /// The arguments into x0 to x3 and the number into x8; `svc #0`.
    fn call(&mut self, number: u32, arguments: [u32; 4]) {
        for (register, argument) in (0..).zip(arguments) {
            self.load(register, argument);
        }
        self.load(8, number);
        self.put(0xd400_0001);
    }

    /// `cmp w0, #0`; `b.le target`.
    fn jump_unless_positive(&mut self, target: usize) {
        self.put(0x7100_001f);
        let back = u32::try_from((self.0.len() - target) / 4).expect("a short loop");
        self.put(0x5400_000d | (back.wrapping_neg() & 0x7_ffff) << 5);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{fs::PermissionsExt, process::ExitStatusExt},
        process::{Child, Command, Stdio},
        time::{Duration, Instant},
    };

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    use super::*;

    #[test]
    fn headers_are_whole() {
        for architecture in [Architecture::Amd64, Architecture::Arm64] {
            let file = program(architecture);
            assert_eq!(headers(architecture, 0).len(), CODE);
            assert!(file.len() < 1024, "{}", file.len());
            // The size that the segment names is the file's.
            let size =
                u64::from_le_bytes(file[ELF_HEADER + 32..ELF_HEADER + 40].try_into().unwrap());
            assert_eq!(size, file.len() as u64);
        }
    }

    #[test]
    fn arm64_jumps_back_to_the_wait() {
        let mut asm = Arm64::default();
        asm.put(0);
        asm.jump_unless_positive(0);
        assert_eq!(asm.0[8..12], 0x54ff_ffcd_u32.to_le_bytes());
    }

    /// Ends the program if the test fails first.
    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn runs_until_it_is_told_to_end() {
        let (host, wait) = match Architecture::host() {
            Some(host @ Architecture::Amd64) => (host, "128 "),
            Some(host @ Architecture::Arm64) => (host, "137 "),
            None => return,
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pause");
        fs::write(&path, program(host)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut running = Running(Command::new(&path).stdout(Stdio::null()).spawn().unwrap());
            let pid = Pid::from_raw(i32::try_from(running.0.id()).unwrap());
            // Until it waits, the signal would simply kill it.
            let proc = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            while !proc("syscall").starts_with(wait) {
                assert!(Instant::now() < deadline, "it does not wait: {}", proc("syscall"));
                std::thread::yield_now();
            }
            let status = proc("status");
            let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
            let ignored = u64::from_str_radix(ignored, 16).unwrap();
            assert_eq!(
                ignored >> (SIGCHLD - 1) & 1,
                1,
                "it does not leave its children to the kernel"
            );
            kill(pid, signal).unwrap();
            let ended = running.0.wait().unwrap();
            assert_eq!((ended.code(), ended.signal()), (Some(0), None));
        }
    }
}
