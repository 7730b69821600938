//! The chunkserver: keeps shards of chunks on the disks of one machine.
//!
//! | module | noun |
//! |---|---|
//! | [`segment`] | files that records are appended to, and the records |
//! | [`index`] | where each shard is: a cache of the segments |
//! | [`target`] | one data directory: segments, index, writer, reader, recovery |
//! | [`healing`] | repair, scrub, rebalancing: what belongs here gets here and stays sound |
//! | [`service`] | the role: targets behind a port, and the link to the master |
//!
//! A target works without the service; tests and tools open it directly.

mod cache;
pub mod healing;
pub mod index;
pub mod segment;
pub mod service;
pub mod target;

pub use healing::HealingSettings;
pub use service::{Serving, Settings, StartError, run};
pub use target::{BLOCKED_THREADS_MAX, OpenError, Put, Target, TargetSettings};
