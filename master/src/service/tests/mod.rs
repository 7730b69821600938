//! The master as a whole, in the simulated world.

mod chunkservers;
mod durability;
mod joining;
mod sessions;
mod support;
