//! The data path: from write(2) to verified shards on chunkservers, and back.
//!
//! ```text
//! write -> written (open run) -> packer -> chunk_writer (prepare, slots) -> committer -> master
//!                                               `-> durability (fsync)
//! read  -> written, extent_map -> chunk_source (block_cache, readahead) -> chunk_reader (flights) -> shard_fetch (proofs, latency)
//!                                                                              `-> rebuild (lost shards)
//! ```
//!
//! Promises (design section 5): a write is seen by every later read here; after [`FileData::flush`] it survives the loss of this machine
//! and of any m chunkservers, after [`FileData::sync`] the loss of power everywhere; no unverified byte is ever returned; an error is told
//! once to each descriptor. Memory is bounded by [`DataSettings`]; bounds that are not settings are in `limits`.
//!
//! [`DataStore`] makes one [`FileData`] for each inode, which all descriptors share. A [`Descriptor`] belongs to each open descriptor.
//! A [`CommitHold`] keeps commits away while the master truncates or punches.

mod block_cache;
mod budget;
mod caretaker;
mod chunk_reader;
mod chunk_source;
mod chunk_writer;
mod committer;
mod compactor;
mod compute;
mod core;
mod dirty;
mod doubts;
mod durability;
mod extent_map;
mod file;
mod file_flush;
mod file_read;
mod file_write;
mod flights;
mod hedge;
mod latency;
mod limits;
mod pack;
mod packer;
mod prepare;
mod proofs;
mod put_job;
mod readahead;
mod rebuild;
mod registry;
mod settings;
mod shard_fetch;
mod slots;
mod store;
mod written;

#[cfg(test)]
mod tests;

pub use self::file::{CommitHold, Descriptor, FileData};
pub use self::prepare::HashedChunk;
pub use self::settings::{DataSettings, PoolChooser};
pub use self::store::DataStore;
