//! How long things took: counts in buckets whose bounds double.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bound of the first bucket; each further one is twice the one before.
const FIRST_BOUND: Duration = Duration::from_micros(8);
/// Buckets with a bound: up to 16.8 s. One more has the rest.
pub const BOUNDS: usize = 22;

/// Durations, as they are counted.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS + 1],
    nanos: AtomicU64,
}

impl Histogram {
    pub fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(nanos)].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The counts at this moment.
    pub fn snapshot(&self) -> Latencies {
        let mut buckets = [0; BOUNDS + 1];
        for (count, bucket) in buckets.iter_mut().zip(&self.buckets) {
            *count = bucket.load(Ordering::Relaxed);
        }
        Latencies { buckets, nanos: self.nanos.load(Ordering::Relaxed) }
    }
}

/// The bound of a bucket; `None` for the last.
pub fn bound(bucket: usize) -> Option<Duration> {
    (bucket < BOUNDS).then(|| FIRST_BOUND * (1 << bucket))
}

fn bucket_of(nanos: u64) -> usize {
    let units = nanos.div_ceil(FIRST_BOUND.as_nanos() as u64).max(1);
    let doublings = u64::BITS - (units - 1).leading_zeros();
    (doublings as usize).min(BOUNDS)
}

/// Durations that were counted up to some moment, or between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Latencies {
    /// Those in each bucket: not added up.
    pub buckets: [u64; BOUNDS + 1],
    pub nanos: u64,
}

impl Latencies {
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum: u64, count| sum.saturating_add(*count))
    }

    /// These and others.
    pub fn plus(mut self, other: &Self) -> Self {
        for (count, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *count = count.saturating_add(*more);
        }
        self.nanos = self.nanos.saturating_add(other.nanos);
        self
    }

    /// What has come since `before`. A process that began anew counts from zero.
    pub fn since(mut self, before: &Self) -> Self {
        if self.count() < before.count() {
            return self;
        }
        for (count, known) in self.buckets.iter_mut().zip(&before.buckets) {
            *count = count.saturating_sub(*known);
        }
        self.nanos = self.nanos.saturating_sub(before.nanos);
        self
    }

    /// The duration that this part (0 to 1) of them did not exceed: exact to the bucket, and within it as if they were spread
    /// evenly. `None` if there are none.
    pub fn percentile(&self, part: f64) -> Option<Duration> {
        let all = self.count();
        let wanted = all as f64 * part;
        let mut below = 0.0;
        for (bucket, count) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = *count as f64;
            if below + count >= wanted {
                let low = bucket.checked_sub(1).and_then(bound).unwrap_or_default();
                let high = bound(bucket).unwrap_or(low);
                return Some(low + (high - low).mul_f64(((wanted - below) / count).clamp(0.0, 1.0)));
            }
            below += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{BOUNDS, FIRST_BOUND, Histogram, Latencies, bound, bucket_of};
    use std::time::Duration;

    #[test]
    fn a_bucket_has_what_does_not_exceed_its_bound() {
        assert_eq!([0, 1, 8_000, 8_001, 16_000, 16_001].map(bucket_of), [0, 0, 0, 1, 1, 2]);
        for bucket in 0..BOUNDS {
            let bound = bound(bucket).unwrap().as_nanos() as u64;
            assert_eq!((bucket_of(bound), bucket_of(bound + 1)), (bucket, bucket + 1));
        }
        assert_eq!((bucket_of(u64::MAX), bound(BOUNDS)), (BOUNDS, None));
        assert!(bound(BOUNDS - 1).unwrap() > Duration::from_secs(16));
    }

    #[test]
    fn percentiles_lie_in_the_right_bucket() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().percentile(0.5), None);
        for _ in 0..90 {
            histogram.record(Duration::from_micros(100));
        }
        for _ in 0..10 {
            histogram.record(Duration::from_millis(50));
        }
        let seen = histogram.snapshot();
        assert_eq!((seen.count(), Duration::from_nanos(seen.nanos)), (100, Duration::from_millis(509)));
        let within = |part, low, high| {
            let found = seen.percentile(part).unwrap().as_micros();
            assert!((low..=high).contains(&found), "{part}: {found} us");
        };
        within(0.5, 64, 128);
        within(0.9, 64, 128);
        within(0.99, 32_768, 65_536);
        histogram.record(Duration::from_secs(100));
        assert_eq!(histogram.snapshot().percentile(1.0), bound(BOUNDS - 1), "of the last bucket only the lower end is known");
    }

    #[test]
    fn a_process_that_began_anew_counts_from_zero() {
        let of = |count| Latencies { buckets: std::array::from_fn(|at| if at == 0 { count } else { 0 }), nanos: count };
        assert_eq!(of(5).since(&of(2)), of(3));
        assert_eq!(of(5).since(&of(9)), of(5));
        assert_eq!(of(5).plus(&of(2)), of(7));
        assert_eq!(FIRST_BOUND, Duration::from_micros(8));
    }
}
