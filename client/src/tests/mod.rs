//! The link, the caches and the operations against a fake master, over the simulated network.

mod caching;
mod chunkservers;
mod exactly_once;
pub mod fake_master;
mod leaving;
mod session;
pub mod world;
