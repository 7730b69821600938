//! How fast healing may be: so many bytes a second, and a fraction of it, few at a time, while clients read or write here.

use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long after the last request of a client it still counts as at work.
const BUSY_FOR: Duration = Duration::from_millis(500);
/// The part of the rate that is left while clients are at work.
const BUSY_PART: u64 = 16;
/// Shards that are pulled at the same time then: where processor or network can't keep up with the rate, no queue grows in front of clients.
const BUSY_PULLS: usize = 1;

/// When the bytes handed out so far will have been paid for. Pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Debt {
    paid_at: Moment,
}

impl Debt {
    /// Takes `bytes` at `rate` bytes a second; how long to wait before they may be used.
    fn take(&mut self, now: Moment, bytes: u64, rate: u64) -> Duration {
        let start = self.paid_at.max(now);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        self.paid_at = start.plus(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        start.since(now)
    }
}

/// Paces whoever asks.
pub struct Pacer {
    runtime: Runtime,
    bytes_per_second: u64,
    debt: Mutex<Debt>,
    /// When a client last asked for anything.
    foreground: AtomicU64,
    busy_pulls: Semaphore,
}

/// The right to move what was asked for, until it is dropped.
pub struct Turn<'a> {
    _busy: Option<SemaphorePermit<'a>>,
}

impl Pacer {
    pub fn new(runtime: Runtime, bytes_per_second: u64) -> Self {
        let debt = Mutex::new(Debt { paid_at: runtime.now() });
        Self { runtime, bytes_per_second, debt, foreground: AtomicU64::new(0), busy_pulls: Semaphore::new(BUSY_PULLS) }
    }

    /// A client reads or writes.
    pub fn note_foreground(&self) {
        self.foreground.store(self.runtime.now().nanos().max(1), Ordering::Relaxed);
    }

    fn is_busy(&self, now: Moment) -> bool {
        let last = self.foreground.load(Ordering::Relaxed);
        last > 0 && now.since(Moment::from_nanos(last)) < BUSY_FOR
    }

    /// Waits until `bytes` more may be moved.
    pub async fn take(&self, bytes: u64) -> Turn<'_> {
        // The semaphore is never closed.
        let busy = if self.is_busy(self.runtime.now()) { self.busy_pulls.acquire().await.ok() } else { None };
        let now = self.runtime.now();
        let rate = if self.is_busy(now) { self.bytes_per_second / BUSY_PART } else { self.bytes_per_second };
        let wait = self.debt.lock().take(now, bytes, rate);
        if !wait.is_zero() {
            self.runtime.sleep(wait).await;
        }
        Turn { _busy: busy }
    }
}

#[cfg(test)]
mod tests {
    use super::{BUSY_PART, Debt, Pacer};
    use cairn_runtime::clock::Moment;
    use cairn_runtime::sim::block_on_world;
    use std::time::Duration;

    #[test]
    fn bytes_are_paid_for_in_time() {
        let second = Duration::from_secs(1);
        let mut debt = Debt { paid_at: Moment::from_nanos(0) };
        let now = Moment::from_nanos(5_000_000_000);
        assert_eq!(debt.take(now, 1000, 1000), Duration::ZERO, "idle time is not saved up");
        assert_eq!(debt.take(now, 500, 1000), second);
        assert_eq!(debt.take(now.plus(second), 0, 1000), second / 2);
    }

    #[test]
    fn clients_go_before() {
        block_on_world(1, |world| async move {
            let pacer = Pacer::new(world.node("server").runtime(), 1 << 20);
            let start = world.now();
            for _ in 0..5 {
                pacer.take(1 << 20).await;
            }
            assert_eq!(world.now().since(start).as_secs(), 4);
            pacer.take(0).await;
            pacer.note_foreground();
            let start = world.now();
            pacer.take(1 << 20).await;
            pacer.take(0).await;
            assert_eq!(world.now().since(start).as_secs(), BUSY_PART);
        });
    }

    #[test]
    fn few_pulls_at_a_time_stand_in_the_way_of_clients() {
        block_on_world(1, |world| async move {
            let pacer = Pacer::new(world.node("server").runtime(), 1 << 20);
            let quiet: Vec<_> = futures_util::future::join_all((0..9).map(|_| pacer.take(0))).await;
            drop(quiet);
            pacer.note_foreground();
            let first = pacer.take(0).await;
            let second = pacer.take(0);
            tokio::pin!(second);
            assert!(futures_util::poll!(&mut second).is_pending());
            drop(first);
            assert!(futures_util::poll!(&mut second).is_ready());
        });
    }
}
