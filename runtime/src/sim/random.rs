//! Randomness that follows from the seed. Each user of it has a stream of its own, so that one more draw here does not
//! change what happens there.

use crate::entropy::Entropy;
use parking_lot::Mutex;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use std::ops::RangeInclusive;
use std::time::Duration;

/// One stream of random numbers.
pub(super) struct Random(ChaCha8Rng);

impl Random {
    /// The stream of a world's seed that is named `purpose`.
    pub(super) fn derive(seed: u64, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(purpose.as_bytes());
        Self(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// A number in `0..bound`; 0 if the bound is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// An index into something of `len` elements, which must not be empty.
    pub(super) fn index(&mut self, len: usize) -> usize {
        debug_assert!(len > 0);
        self.below(len as u64) as usize
    }

    /// A duration in a range, to the nanosecond.
    pub(super) fn between(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let low = nanos(*range.start());
        let width = nanos(*range.end()).saturating_sub(low);
        Duration::from_nanos(low.saturating_add(self.below(width.saturating_add(1))))
    }

    /// True with the given probability. Certain outcomes take no draw.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        if probability <= 0.0 {
            return false;
        }
        ((self.0.next_u64() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    pub(super) fn coin(&mut self) -> bool {
        self.0.next_u32() & 1 == 1
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What a life of a node takes for the randomness of its machine.
pub(super) struct SimEntropy(Mutex<Random>);

impl SimEntropy {
    pub(super) fn new(seed: u64, node: &str, life: u64) -> Self {
        Self(Mutex::new(Random::derive(seed, &format!("entropy/{node}/{life}"))))
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().0.fill_bytes(bytes);
    }
}
