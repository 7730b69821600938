//! Which call asks for a lock.
//!
//! The kernel says whether a lock is one of flock(2) or of fcntl(2), which do not see each other. fuser (0.18) does not pass that on. A lock of a
//! part of a file is of fcntl. For the others, the thread that asks waits in its system call, and /proc tells which one that is. Where
//! it does not (a mount by an ordinary user on a machine that forbids it), flock is a lock of fcntl on the whole file, as with NFS.

use crate::caller::Caller;
use cairn_client::FileSystem;
use cairn_common::lock::{LockClaim, LockFamily, LockMode};
use cairn_common::wire::master::LockPatience;

const READ_LOCK: i32 = 0;
const WRITE_LOCK: i32 = 1;
pub const UNLOCKED: i32 = 2;
/// Where a lock ends that reaches to the end of any file.
const END_OF_FILES: u64 = i64::MAX as u64;

pub fn mode_of(number: i32) -> Option<LockMode> {
    match number {
        READ_LOCK => Some(LockMode::Shared),
        WRITE_LOCK => Some(LockMode::Exclusive),
        _ => None,
    }
}

pub fn mode_number(mode: LockMode) -> i32 {
    match mode {
        LockMode::Shared => READ_LOCK,
        LockMode::Exclusive => WRITE_LOCK,
    }
}

/// The system calls that lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockSyscall {
    Flock,
    /// fcntl(2): a lock of the process.
    Process,
    /// fcntl(2) with F_OFD_...: a lock of the open file description.
    OpenFile,
}

#[cfg(target_arch = "x86_64")]
mod numbers {
    pub const FCNTL: u64 = 72;
    pub const FLOCK: u64 = 73;
}

/// The numbers of all architectures that came later.
#[cfg(not(target_arch = "x86_64"))]
mod numbers {
    pub const FCNTL: u64 = 25;
    pub const FLOCK: u64 = 32;
}

impl LockSyscall {
    /// Reads /proc/THREAD/syscall: the number of the call, and its arguments.
    pub fn of(syscall: &str) -> Option<Self> {
        const F_OFD_SETLK: u64 = 37;
        const F_OFD_SETLKW: u64 = 38;
        let mut fields = syscall.split_ascii_whitespace();
        let number: u64 = fields.next()?.parse().ok()?;
        let command = fields.nth(1).and_then(|field| u64::from_str_radix(field.strip_prefix("0x")?, 16).ok());
        match (number, command?) {
            (numbers::FLOCK, _) => Some(LockSyscall::Flock),
            (numbers::FCNTL, F_OFD_SETLK | F_OFD_SETLKW) => Some(LockSyscall::OpenFile),
            (numbers::FCNTL, _) => Some(LockSyscall::Process),
            _ => None,
        }
    }
}

/// The family of a claim, and what shall happen if somebody is in its way. Looks at the caller only if it matters.
pub async fn resolve(fs: &FileSystem, caller: &Caller, claim: &LockClaim, waits: bool) -> (LockFamily, LockPatience) {
    let is_whole = claim.range.first == 0 && claim.range.last >= END_OF_FILES;
    let is_lock = claim.mode.is_some();
    let holds = |family| fs.may_hold_locks(claim.ino, family, claim.owner);
    let syscall = match (is_whole, is_lock, waits) {
        // What an owner does not have it need not let go of.
        (true, false, _) if !holds(LockFamily::Posix) => Some(LockSyscall::Flock),
        (true, false, _) if !holds(LockFamily::Flock) => Some(LockSyscall::Process),
        (true, ..) | (false, true, true) => caller.lock_call().await,
        (false, ..) => Some(LockSyscall::Process),
    };
    let family = if is_whole && syscall == Some(LockSyscall::Flock) { LockFamily::Flock } else { LockFamily::Posix };
    let patience = match (waits && is_lock, syscall) {
        (false, _) => LockPatience::None,
        (true, Some(LockSyscall::Process)) => LockPatience::WaitsIfItEnds,
        (true, _) => LockPatience::Waits,
    };
    (family, patience)
}

#[cfg(test)]
mod tests {
    use super::{LockSyscall, mode_number, mode_of, numbers};

    #[test]
    fn the_call_is_read_from_proc() {
        let line = |number: u64, command: &str| format!("{number} 0x3 {command} 0x7ffd 0x0 0x0 0x0 0x7ffd1000 0x7f0f2000\n");
        assert_eq!(LockSyscall::of(&line(numbers::FLOCK, "0x2")), Some(LockSyscall::Flock));
        assert_eq!(LockSyscall::of(&line(numbers::FCNTL, "0x6")), Some(LockSyscall::Process));
        assert_eq!(LockSyscall::of(&line(numbers::FCNTL, "0x26")), Some(LockSyscall::OpenFile));
        assert_eq!(LockSyscall::of(&line(0, "0x26")), None);
        assert_eq!((LockSyscall::of("running\n"), LockSyscall::of("")), (None, None));
    }

    #[test]
    fn modes_are_those_of_linux() {
        for number in [0, 1] {
            assert_eq!(mode_of(number).map(mode_number), Some(number));
        }
        assert_eq!(mode_of(2), None);
    }
}
