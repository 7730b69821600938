//! The thread that waits for a request, and the signals that call it away.
//!
//! The kernel would tell of them by FUSE_INTERRUPT, but fuser answers that by itself, with "not supported", whereupon the kernel
//! never sends it again. What it would tell also stands in /proc, so a request that takes long looks there from time to time.
//! That costs the quick ones nothing. (Why not otherwise: docs/decisions/2026-11-25-signals-from-proc.md)
//!
//! A dying thread has SIGKILL pending: the kernel turns every fatal signal into it. So has one whose process ends. A thread that
//! is past that, and waits for the flush that the end of its process entails, shows it by its flags and exit code.

use crate::lock_call::LockSyscall;
use cairn_common::error::FsError;
use cairn_runtime::Runtime;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

/// A request that is answered before this is never looked at.
const FIRST_LOOK: Duration = Duration::from_millis(250);
/// Later looks come further apart, up to this: it bounds how long a killed process stays.
const LOOKS_APART_MAX: Duration = Duration::from_secs(1);
/// A wait for a lock is an ordinary thing, and so is a signal that ends it.
const LOOKS_FOR_SIGNALS_APART: Duration = Duration::from_millis(250);

/// What may end a wait: it leaves when it is ...
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// Its death alone. For requests that change something: no program expects EINTR from them, and one that goes on has to
    /// know whether they were done.
    Killed,
    /// Also the signals by which people ask programs to stop (Ctrl-C), though a program may handle them. For requests that
    /// change nothing.
    Asked,
    /// Also every other signal that it handles: programs end waits for locks by a timer.
    Signalled,
}

/// Who waits for a request.
pub struct Caller {
    runtime: Runtime,
    /// As the kernel numbers threads where the mount was made; 0 for the kernel itself and for strangers.
    thread: u32,
    leaves: Leaves,
}

impl Caller {
    pub fn new(runtime: &Runtime, thread: u32, leaves: Leaves) -> Self {
        Self { runtime: runtime.clone(), thread, leaves }
    }

    /// Does `work` unless the caller is called away first; then `work` is dropped where it stands.
    pub async fn wait_for<T>(&self, work: impl Future<Output = Result<T, FsError>>) -> Result<T, FsError> {
        let mut work = pin!(work);
        let mut pause = FIRST_LOOK;
        let pause_max = if self.leaves == Leaves::Signalled { LOOKS_FOR_SIGNALS_APART } else { LOOKS_APART_MAX };
        loop {
            tokio::select! {
                biased;
                result = work.as_mut() => return result,
                called_away = self.look_after(pause) => if called_away {
                    return Err(FsError::Interrupted);
                },
            }
            pause = (pause * 2).min(pause_max);
        }
    }

    /// By which call it asks for a lock of the whole file, as far as that can be told.
    pub async fn lock_call(&self) -> Option<LockSyscall> {
        const LOOKS: u32 = 50;
        const LOOKS_APART: Duration = Duration::from_micros(200);
        let thread = self.thread;
        for _ in 0..LOOKS {
            let syscall = self.runtime.blocking(move || read(thread, "syscall")).await;
            // It may not have come to rest yet.
            if !syscall.starts_with("running") {
                return LockSyscall::of(&syscall);
            }
            self.runtime.sleep(LOOKS_APART).await;
        }
        None
    }

    /// Whether the caller, whose own group is `gid`, belongs to `group`.
    pub async fn is_in_group(&self, gid: u32, group: u32) -> bool {
        let thread = self.thread;
        gid == group || self.runtime.blocking(move || has_group(&read(thread, "status"), group)).await
    }

    async fn look_after(&self, pause: Duration) -> bool {
        if self.thread == 0 {
            return std::future::pending().await;
        }
        self.runtime.sleep(pause).await;
        let (thread, leaves) = (self.thread, self.leaves);
        self.runtime.blocking(move || is_called_away(thread, leaves)).await
    }
}

/// Of a thread that /proc does not show (hidepid), nothing is known.
fn read(thread: u32, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{thread}/{file}")).unwrap_or_default()
}

fn is_called_away(thread: u32, leaves: Leaves) -> bool {
    let signals = Signals::of_status(&read(thread, "status"));
    signals.is_some_and(|signals| signals.call_away(leaves)) || was_killed(&read(thread, "stat"))
}

/// Whether a status names a group among the supplementary ones.
fn has_group(status: &str, group: u32) -> bool {
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    groups.split_ascii_whitespace().any(|number| number.parse() == Ok(group))
}

/// Sets of signals, as /proc/PID/status shows them: signal n is bit n - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Signals {
    /// Of the thread or its process.
    pending: u64,
    blocked: u64,
    ignored: u64,
    caught: u64,
}

const fn set_of(numbers: &[u32]) -> u64 {
    let (mut set, mut at) = (0, 0);
    while at < numbers.len() {
        set |= 1 << (numbers[at] - 1);
        at += 1;
    }
    set
}

const KILL: u64 = set_of(&[9]);
/// Dying of them begins only when the thread has left the kernel, so that it may dump core: QUIT, ILL, TRAP, ABRT, BUS, FPE, SEGV, XCPU, XFSZ, SYS.
const CORE_DUMPING: u64 = set_of(&[3, 4, 5, 6, 7, 8, 11, 24, 25, 31]);
/// HUP, INT, QUIT, TERM.
const ASKING: u64 = set_of(&[1, 2, 3, 15]);

impl Signals {
    fn of_status(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        Some(Self {
            pending: field("SigPnd")? | field("ShdPnd")?,
            blocked: field("SigBlk")?,
            ignored: field("SigIgn")?,
            caught: field("SigCgt")?,
        })
    }

    fn call_away(&self, leaves: Leaves) -> bool {
        let heard = self.pending & !self.blocked & !self.ignored;
        let deadly = self.pending & KILL | heard & CORE_DUMPING & !self.caught;
        let asking = match leaves {
            Leaves::Killed => 0,
            Leaves::Asked => heard & ASKING,
            Leaves::Signalled => heard & (ASKING | self.caught),
        };
        deadly | asking != 0
    }
}

/// Whether a line of /proc/PID/stat is of a process that a signal has ended, and whose files are being closed. One that ends by itself
/// waits for them: whoever waits for it may count on what it wrote.
fn was_killed(stat: &str) -> bool {
    const EXITING: u64 = 0x4;
    const SIGNAL_BITS: u64 = 0x7f;
    // The second field is a name in parentheses and may contain anything; the third comes after the last of them.
    let Some((_, after_name)) = stat.rsplit_once(')') else { return false };
    let field = |number: usize| after_name.split_ascii_whitespace().nth(number - 3).and_then(|field| field.parse::<u64>().ok());
    let (Some(flags), Some(exit_code)) = (field(9), field(52)) else { return false };
    flags & EXITING != 0 && exit_code & SIGNAL_BITS != 0
}

#[cfg(test)]
mod tests {
    use super::{Leaves, Signals, has_group, set_of, was_killed};

    const HANDLES_INT: Signals = Signals { pending: 0, blocked: 0, ignored: 0, caught: set_of(&[2]) };

    #[test]
    fn the_dying_leave_whatever_they_wait_for() {
        for deadly in [9, 3, 6, 11] {
            let signals = Signals { pending: set_of(&[deadly]), ..Signals::default() };
            assert!(signals.call_away(Leaves::Killed), "{deadly}");
        }
        let blocked = Signals { pending: set_of(&[3]), blocked: set_of(&[3]), ..Signals::default() };
        assert!(!blocked.call_away(Leaves::Asked), "a blocked signal is for later");
        let caught = Signals { pending: set_of(&[3]), caught: set_of(&[3]), ..Signals::default() };
        assert!(!caught.call_away(Leaves::Killed), "a handled signal does not kill");
    }

    #[test]
    fn a_handled_request_to_stop_ends_only_what_changes_nothing() {
        let asked = Signals { pending: set_of(&[2]), ..HANDLES_INT };
        assert!(asked.call_away(Leaves::Asked));
        assert!(!asked.call_away(Leaves::Killed));
        // A child that ended, a window that changed its size, a timer.
        for harmless in [17, 28, 14] {
            let signals = Signals { pending: set_of(&[harmless]), caught: set_of(&[harmless]), ..Signals::default() };
            assert!(!signals.call_away(Leaves::Asked), "{harmless}");
        }
        let alarm = Signals { pending: set_of(&[14]), caught: set_of(&[14]), ..Signals::default() };
        assert!(alarm.call_away(Leaves::Signalled) && !alarm.call_away(Leaves::Asked));
        let child = Signals { pending: set_of(&[17]), ..Signals::default() };
        assert!(!child.call_away(Leaves::Signalled), "a signal that does nothing ends nothing");
        let ignored = Signals { pending: set_of(&[1]), ignored: set_of(&[1]), ..Signals::default() };
        assert!(!ignored.call_away(Leaves::Asked));
    }

    #[test]
    fn the_sets_are_read_from_a_status() {
        let status = "Name:\tSigPnd: 5\nPid:\t7\nSigQ:\t0/9\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000002\n\
                      SigBlk:\t0000000000010000\nSigIgn:\t0000000000000004\nSigCgt:\t0000000180004002\n";
        let signals = Signals { pending: set_of(&[9, 2]), blocked: 0x10000, ignored: set_of(&[3]), caught: 0x1_8000_4002 };
        assert_eq!(Signals::of_status(status), Some(signals));
        assert_eq!(Signals::of_status(""), None);
        let own = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(Signals::of_status(&own).is_some(), "{own}");
    }

    #[test]
    fn groups_are_read_from_a_status() {
        let status = "Gid:\t7\t7\t7\t7\nGroups:\t4 20 1000 \nNStgid:\t9\n";
        assert!(has_group(status, 20) && has_group(status, 1000));
        assert!(!has_group(status, 9) && !has_group(status, 2) && !has_group("", 0));
    }

    /// Fields 3 to 52 with these flags and this exit code.
    fn stat(name: &str, flags: u64, exit_code: u64) -> String {
        let mut fields = vec!["0".to_owned(); 50];
        (fields[0], fields[6], fields[49]) = ("D".to_owned(), flags.to_string(), exit_code.to_string());
        format!("7 ({name}) {}", fields.join(" "))
    }

    #[test]
    fn a_killed_process_differs_from_one_that_ends_by_itself() {
        assert!(was_killed(&stat("a) 1 (b c", 0x40_0004, 9)));
        assert!(was_killed(&stat("x", 0x4, 0x80 | 6)), "with a core dump");
        assert!(!was_killed(&stat("x", 0x4, 1 << 8)), "exit(1)");
        assert!(!was_killed(&stat("x", 0, 9)), "the exit code of a thread that lives says nothing");
        assert!(!was_killed(""));
        assert!(!was_killed(&std::fs::read_to_string("/proc/thread-self/stat").unwrap()));
    }
}
