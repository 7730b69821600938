//! Spinning before parking: a role that has just sent or received something looks at its sockets for a little longer before it
//! gives its CPU up. Waking an idle virtual CPU costs 25 to 35 us, which is most of the latency of a small call.
//!
//! It only ever uses a CPU that nobody else wants: between two looks the thread yields, and if another thread took the CPU then, it
//! spins no more for [`BACK_OFF`]. It ends [`RoleSettings::spin`](super::RoleSettings) after the last message.
//!
//! All of this is local to the role's thread; on other threads `touch` does nothing.

use crate::clock::Moment;
use crate::real::clock;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// A yield that takes longer than this let another thread run.
const CONTENDED: Duration = Duration::from_micros(10);
/// How long a role does not spin after it was in the way.
const BACK_OFF: Duration = Duration::from_millis(50);

thread_local! {
    static LIMIT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static LAST_MESSAGE: Cell<Moment> = const { Cell::new(Moment::from_nanos(0)) };
    static QUIET_UNTIL: Cell<Moment> = const { Cell::new(Moment::from_nanos(0)) };
}

/// From now on this thread spins for up to `limit` after a message.
pub fn enable(limit: Duration) {
    LIMIT.set(limit);
}

/// A message was sent or received on this thread.
pub fn touch() {
    if !LIMIT.get().is_zero() {
        LAST_MESSAGE.set(clock::now());
    }
}

/// Whether the thread, which has nothing to do, should look again instead of parking.
fn look_again() -> bool {
    let limit = LIMIT.get();
    if limit.is_zero() {
        return false;
    }
    let before = clock::now();
    if before < QUIET_UNTIL.get() || before.since(LAST_MESSAGE.get()) >= limit {
        return false;
    }
    rustix::thread::sched_yield();
    let after = clock::now();
    if after.since(before) > CONTENDED {
        QUIET_UNTIL.set(after.plus(BACK_OFF));
    }
    true
}

/// Keeps a runtime awake: `before_park` is what the runtime does when it has nothing to do, `run` a task on it. The runtime does not
/// park if a task was woken meanwhile, but looks at its sockets.
#[derive(Debug, Clone, Default)]
pub struct Spinner {
    again: Arc<Notify>,
}

impl Spinner {
    pub fn before_park(&self) {
        if look_again() {
            self.again.notify_one();
        }
    }

    pub async fn run(self) {
        loop {
            self.again.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{enable, look_again, touch};
    use crate::real::clock;
    use std::time::Duration;

    #[test]
    fn it_ends_and_starts_only_with_a_message() {
        touch();
        assert!(!look_again(), "it must not spin unless asked to");
        let limit = Duration::from_millis(5);
        enable(limit);
        assert!(!look_again());
        touch();
        let started = clock::now();
        assert!(look_again());
        while look_again() {
            assert!(clock::now().since(started) < 100 * limit);
        }
    }
}
