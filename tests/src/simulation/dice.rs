//! Choices that follow from the seed, each purpose with a stream of its own.

use cairn_runtime::Runtime;
use cairn_runtime::sim::World;
use std::time::Duration;

/// A source of choices. Cheap to clone; a clone goes on with the same stream.
#[derive(Clone)]
pub struct Dice(Runtime);

impl Dice {
    /// The stream of a purpose in a world.
    pub fn of(world: &World, purpose: &str) -> Self {
        Self(world.node(&format!("dice for {purpose}")).runtime())
    }

    /// What a life of a node draws from its own randomness.
    pub fn on(runtime: &Runtime) -> Self {
        Self(runtime.clone())
    }

    /// A number in `0..bound`; 0 if the bound is 0.
    pub fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.0.random_u64()) * u128::from(bound)) >> 64) as u64
    }

    pub fn percent(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn index(&self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    pub fn pick<'a, T>(&self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// Milliseconds in a range.
    pub fn millis(&self, from: u64, until: u64) -> Duration {
        Duration::from_millis(from + self.below(until - from))
    }
}
