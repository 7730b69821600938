//! The master as a whole, in the simulated world.

mod checks;
mod chunkservers;
mod compaction;
mod durability;
mod joining;
mod leases;
mod sessions;
mod support;
