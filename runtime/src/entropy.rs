//! Randomness.

/// A source of random bytes: the operating system's, or the seeded one of a simulated world.
pub trait Entropy: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);
}
