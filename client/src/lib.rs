//! CairnFS as a library: sessions, caches, readers and writers. The mount, the command line and any gateway stand on it.
//!
//! [`FileSystem`] is the whole public face. Below it, from the top:
//!
//! | module | what it does |
//! |---|---|
//! | `filesystem` | the operations, one file per family |
//! | `cache` | attributes and names, remembered for a short time |
//! | `data` | from write(2) to verified shards on chunkservers, and back |
//! | `link` | the session with the master: calls that are answered, mutations that are done once |
//! | `targets` | the connections to the chunkservers, and the cluster map |
//!
//! `operations`, `counters` and `metrics` count what it does. `ports` is what `data` needs of `link` and `targets`. docs/semantics.md says what users may rely on.

pub mod cache;
pub mod counters;
pub mod data;
pub mod filesystem;
pub mod limits;
pub mod link;
mod metrics;
pub mod operations;
pub mod ports;
pub mod settings;
pub mod targets;

pub use cache::Telling;
pub use counters::Counters;
pub use data::HashedChunk;
pub use filesystem::{AllocateMode, FileSystem, Handle, OpenFlags, Opened, SeekTarget, WriteAt, Written};
pub use link::StartError;
pub use operations::Operation;
pub use settings::Settings;

#[cfg(test)]
mod tests;
