//! `--bwlimit`: so many bytes a second over all that is under way.

use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::time::Duration;

/// Hands out bytes. Without a rate it never waits.
pub struct Pace {
    runtime: Runtime,
    bytes_per_second: Option<u64>,
    /// When everything handed out so far is paid for.
    paid: Mutex<Moment>,
}

impl Pace {
    pub fn new(runtime: &Runtime, bytes_per_second: Option<u64>) -> Self {
        Self { runtime: runtime.clone(), bytes_per_second: bytes_per_second.filter(|rate| *rate > 0), paid: Mutex::default() }
    }

    /// Returns when these bytes may go. An idle time is not saved up.
    pub async fn take(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let until = {
            let mut paid = self.paid.lock();
            let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
            *paid = (*paid).max(self.runtime.now()).plus(cost);
            *paid
        };
        self.runtime.clock.sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;
    use cairn_runtime::real::run_role_here;
    use futures_util::future::join_all;
    use std::time::Duration;

    #[test]
    fn bytes_go_at_their_rate_whoever_sends_them() {
        let took = run_role_here("pace", |runtime| async move {
            let (limited, free) = (Pace::new(&runtime, Some(10_000)), Pace::new(&runtime, None));
            let start = runtime.now();
            free.take(u64::MAX).await;
            join_all((0..4).map(|_| limited.take(250))).await;
            runtime.now().since(start)
        });
        let took = took.unwrap();
        assert!(took >= Duration::from_millis(99) && took < Duration::from_secs(5), "{took:?}");
    }
}
