//! How long targets take to answer lately: when to ask elsewhere, too, and which targets to go around for a while. Pure.
//!
//! A target is *slow* after several answers in a row that took many times the median of all, or that others were faster to make up for. It is
//! gone around for a pause, then tried again; the first slow answer then makes it slow again. Answers in time make up for slow ones.

use super::limits::{HEDGE_DELAY_MAX, HEDGE_DELAY_MIN, SLOW_ANSWER_MIN, SLOW_ANSWERS_MAX, SLOW_PAUSE};
use cairn_common::ids::TargetId;
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many answers the percentiles are taken of.
const SAMPLES: usize = 128;
/// They are computed anew after so many answers.
const REFRESH_EVERY: usize = 16;
/// An answer that takes so many times the median is slow.
const SLOW_FACTOR: u32 = 10;

/// How long answers take lately.
#[derive(Default)]
pub struct Latency {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ring: Vec<Duration>,
    next: usize,
    median: Duration,
    p95: Duration,
    /// Those with slow answers that were not made up for.
    slow: BTreeMap<TargetId, Slowness>,
}

#[derive(Default)]
struct Slowness {
    answers: u32,
    avoided_until: Moment,
}

impl Latency {
    /// An answer of a target that took so long.
    pub fn record(&self, target: TargetId, took: Duration, now: Moment) {
        let mut state = self.state.lock();
        state.take_sample(took);
        if took > (state.median * SLOW_FACTOR).max(SLOW_ANSWER_MIN) {
            state.note_slow(target, now);
        } else if let Some(slowness) = state.slow.get_mut(&target) {
            slowness.answers -= 1;
            if slowness.answers == 0 {
                state.slow.remove(&target);
            }
        }
    }

    /// Others had the answer before this target, though they were asked later.
    pub fn outrun(&self, target: TargetId, now: Moment) {
        self.state.lock().note_slow(target, now);
    }

    /// Whether to go around a target.
    pub fn is_slow(&self, target: TargetId, now: Moment) -> bool {
        self.state.lock().slow.get(&target).is_some_and(|slowness| now < slowness.avoided_until)
    }

    /// How long to wait for an answer before asking elsewhere, too.
    pub fn hedge_delay(&self) -> Duration {
        (self.state.lock().p95 * 3).clamp(HEDGE_DELAY_MIN, HEDGE_DELAY_MAX)
    }
}

impl State {
    fn take_sample(&mut self, took: Duration) {
        let at = self.next % SAMPLES;
        match self.ring.get_mut(at) {
            Some(sample) => *sample = took,
            None => self.ring.push(took),
        }
        self.next += 1;
        if self.next.is_multiple_of(REFRESH_EVERY) {
            let mut sorted = self.ring.clone();
            sorted.sort_unstable();
            self.median = sorted[sorted.len() / 2];
            self.p95 = sorted[sorted.len() * 95 / 100];
        }
    }

    fn note_slow(&mut self, target: TargetId, now: Moment) {
        let slowness = self.slow.entry(target).or_default();
        slowness.answers += 1;
        if slowness.answers >= SLOW_ANSWERS_MAX {
            slowness.answers = SLOW_ANSWERS_MAX - 1;
            slowness.avoided_until = now.plus(SLOW_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Latency;
    use crate::data::limits::SLOW_PAUSE;
    use cairn_common::ids::TargetId;
    use cairn_runtime::clock::Moment;
    use std::time::Duration;

    const GOOD: TargetId = TargetId(1);
    const BAD: TargetId = TargetId(2);

    fn after(millis: u64) -> Moment {
        Moment::default().plus(Duration::from_millis(millis))
    }

    #[test]
    fn the_delay_follows_the_slow_answers() {
        let latency = Latency::default();
        let record = |millis: u64| (0..128).for_each(|_| latency.record(GOOD, Duration::from_millis(millis), after(0)));
        assert_eq!(latency.hedge_delay(), Duration::from_millis(50));
        record(1);
        assert_eq!(latency.hedge_delay(), Duration::from_millis(50));
        record(100);
        assert_eq!(latency.hedge_delay(), Duration::from_millis(300));
        record(9_000);
        assert_eq!(latency.hedge_delay(), Duration::from_millis(800));
    }

    #[test]
    fn a_slow_target_is_gone_around_and_tried_again() {
        let latency = Latency::default();
        (0..128).for_each(|_| latency.record(GOOD, Duration::from_micros(200), after(0)));
        let slow = |at: u64| latency.record(BAD, Duration::from_millis(40), after(at));
        slow(10);
        latency.outrun(BAD, after(60));
        assert!(!latency.is_slow(BAD, after(60)), "that happens");
        slow(100);
        assert!(latency.is_slow(BAD, after(101)) && !latency.is_slow(GOOD, after(101)));
        let tried = 101 + SLOW_PAUSE.as_millis() as u64;
        assert!(!latency.is_slow(BAD, after(tried)));
        slow(tried);
        assert!(latency.is_slow(BAD, after(tried + 1)), "one is enough now");
    }

    #[test]
    fn a_slow_answer_now_and_then_is_made_up_for() {
        let latency = Latency::default();
        for round in 0..1000 {
            latency.record(BAD, Duration::from_millis(if round % 3 == 0 { 90 } else { 1 }), after(round));
            assert!(!latency.is_slow(BAD, after(round)), "round {round}");
        }
    }

    #[test]
    fn nobody_is_slow_where_all_are() {
        let latency = Latency::default();
        for round in 0..1000 {
            let target = TargetId(round % 6);
            latency.record(target, Duration::from_millis(30), after(u64::from(round)));
            assert!(round < 16 || !latency.is_slow(target, after(u64::from(round) + 2_000)));
        }
    }
}
