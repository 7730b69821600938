//! Several ways to the same answer: a slow or failing one must not hold up the others.

use super::limits::{HEDGE_DELAY_MAX, HEDGE_DELAY_MIN};
use cairn_runtime::Runtime;
use cairn_runtime::task::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use std::time::Duration;

/// How many answers the percentile is taken of.
const SAMPLES: usize = 128;
/// It is computed anew after so many answers.
const REFRESH_EVERY: usize = 16;

/// How long answers take lately.
#[derive(Default)]
pub struct Latency {
    state: Mutex<Samples>,
}

#[derive(Default)]
struct Samples {
    ring: Vec<Duration>,
    next: usize,
    p95: Duration,
}

impl Latency {
    pub fn record(&self, took: Duration) {
        let mut state = self.state.lock();
        let at = state.next % SAMPLES;
        match state.ring.get_mut(at) {
            Some(sample) => *sample = took,
            None => state.ring.push(took),
        }
        state.next += 1;
        if state.next.is_multiple_of(REFRESH_EVERY) {
            let mut sorted = state.ring.clone();
            sorted.sort_unstable();
            state.p95 = sorted[sorted.len() * 95 / 100];
        }
    }

    /// How long to wait for an answer before asking elsewhere, too.
    pub fn hedge_delay(&self) -> Duration {
        (self.state.lock().p95 * 3).clamp(HEDGE_DELAY_MIN, HEDGE_DELAY_MAX)
    }
}

/// Makes the attempts in order: the next one starts when one has failed, or when none has answered for `delay`. The first
/// success wins and the rest is dropped; otherwise all the failures, in the order in which they came.
pub async fn first_success<'a, T, E>(
    runtime: &Runtime,
    delay: Duration,
    attempts: Vec<BoxFuture<'a, Result<T, E>>>,
    on_hedge: impl Fn(),
) -> Result<T, Vec<E>> {
    let mut waiting = attempts.into_iter();
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    running.extend(waiting.next());
    while !running.is_empty() {
        let more = waiting.len() > 0;
        tokio::select! {
            biased;
            answer = running.next() => match answer {
                Some(Ok(value)) => return Ok(value),
                Some(Err(error)) => {
                    failures.push(error);
                    running.extend(waiting.next());
                }
                None => {}
            },
            () = runtime.sleep(delay), if more => {
                on_hedge();
                running.extend(waiting.next());
            }
        }
    }
    Err(failures)
}

#[cfg(test)]
mod tests {
    use super::Latency;
    use std::time::Duration;

    #[test]
    fn the_delay_follows_the_slow_answers() {
        let latency = Latency::default();
        assert_eq!(latency.hedge_delay(), Duration::from_millis(50));
        (0..128).for_each(|_| latency.record(Duration::from_millis(1)));
        assert_eq!(latency.hedge_delay(), Duration::from_millis(50));
        (0..128).for_each(|_| latency.record(Duration::from_millis(100)));
        assert_eq!(latency.hedge_delay(), Duration::from_millis(300));
        (0..128).for_each(|_| latency.record(Duration::from_secs(9)));
        assert_eq!(latency.hedge_delay(), Duration::from_millis(800));
    }
}
