//! The simulated world: a whole cluster in one thread, under virtual time, from one seed.
//!
//! A [`World`] holds nodes. [`Node::runtime`] starts a life of a node and gives the [`Runtime`](crate::Runtime) that a role runs on;
//! [`Node::crash`] ends it. Everything that happens (which ready task goes next, how long a message takes, which unsynced
//! sector survives a power loss) is drawn from the seed, so one seed is one world, and [`World::trace_digest`] is its fingerprint.
//!
//! Invariants:
//! - only one thread runs tasks; computing takes no virtual time; time moves only when nothing is ready, to the next timer;
//! - a life that has ended does nothing more: its tasks are dropped at their await, its sockets vanish without a goodbye, and its old
//!   handles only give errors;
//! - after `sync_data` and `sync_directory` nothing of a file is ever lost; what was not synced may be, see [`Crash`].
//!
//! ```
//! use cairn_runtime::sim::{Crash, block_on_world};
//! use cairn_runtime::disk::OpenMode;
//! use std::path::Path;
//! use std::time::Duration;
//!
//! block_on_world(7, |world| async move {
//!     let node = world.node("chunkserver-1");
//!     let runtime = node.runtime();
//!     let disk = runtime.disk.clone();
//!     let written = runtime.blocking(move || {
//!         let file = disk.open(Path::new("/note"), OpenMode::CreateNew)?;
//!         file.write_at(&[b"kept"], 0)?;
//!         file.sync_data()?;
//!         disk.sync_directory(Path::new("/"))
//!     });
//!     written.await.unwrap();
//!     runtime.sleep(Duration::from_secs(3600)).await; // takes no real time
//!
//!     node.crash(Crash::PowerLoss);
//!     let next_life = node.runtime();
//!     assert_eq!(next_life.disk.read(Path::new("/note"), 100).unwrap(), b"kept");
//! });
//! ```
//!
//! docs/simulation.md tells how to write and how to replay a simulated test.

mod clock;
mod disk;
mod executor;
mod network;
mod node;
mod random;
mod trace;
mod world;

#[cfg(test)]
mod tests;

pub use disk::{DiskFaults, SimDisk};
pub use network::{NetworkFaults, SimNetwork};
pub use node::{Crash, Node, NodeId};
pub use world::{World, block_on_world, for_each_seed};
