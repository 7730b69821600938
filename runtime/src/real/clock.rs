//! The clocks of the operating system.

use crate::clock::{Clock, Moment};
use crate::task::BoxFuture;
use cairn_common::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Moments of one process are comparable, whichever clock told them: they share this origin.
static ORIGIN: OnceLock<u64> = OnceLock::new();

/// Monotonic time, for what lies below the seam. It goes on while the machine sleeps: a lease does not last longer for that.
pub(super) fn now() -> Moment {
    let since_boot = since_boot();
    Moment::from_nanos(since_boot.saturating_sub(*ORIGIN.get_or_init(|| since_boot)))
}

fn since_boot() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    // Neither is negative: clock_gettime(2).
    time.tv_sec.cast_unsigned() * NANOS_PER_SECOND + time.tv_nsec.cast_unsigned()
}

/// Monotonic time from `CLOCK_BOOTTIME`, wall time from `CLOCK_REALTIME`, timers of a tokio runtime (to the millisecond, rounded up).
#[derive(Debug, Clone)]
pub struct RealClock {
    handle: Handle,
}

impl RealClock {
    /// Timers run on the runtime of `handle`, wherever they are waited for.
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

impl Clock for RealClock {
    fn now(&self) -> Moment {
        now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is what Runtime::wall stands on")]
    fn wall(&self) -> Timestamp {
        let nanos = |elapsed: Duration| i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Timestamp::from_nanos(nanos(after)),
            Err(before) => Timestamp::from_nanos(-nanos(before.duration())),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is what Runtime::sleep stands on")]
    fn sleep_until(&self, moment: Moment) -> BoxFuture<'static, ()> {
        let wait = moment.since(self.now());
        let _context = self.handle.enter();
        Box::pin(tokio::time::sleep(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::RealClock;
    use crate::clock::{Clock, Moment};
    use std::time::Duration;

    #[test]
    fn a_sleep_never_ends_early() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let clock = RealClock::new(runtime.handle().clone());
        runtime.block_on(async {
            for micros in [0, 1, 999, 1_000, 1_500, 20_000] {
                let wanted = clock.now().plus(Duration::from_micros(micros));
                clock.sleep_until(wanted).await;
                assert!(clock.now() >= wanted, "{micros}");
            }
            clock.sleep_until(Moment::from_nanos(0)).await;
        });
    }

    #[test]
    fn clocks_of_one_process_agree() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (a, b) = (RealClock::new(runtime.handle().clone()), RealClock::new(runtime.handle().clone()));
        let (first, second, third) = (a.now(), b.now(), a.now());
        assert!(first <= second && second <= third);
        assert!(a.wall().parts().0 > 1_600_000_000, "the wall clock of this machine is before 2020");
    }
}
