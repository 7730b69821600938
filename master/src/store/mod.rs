//! The master's disk: a command log, and behind it a memtable over redb.
//!
//! A command is appended to the log, applied to the memtable and answered, all in one turn of one thread ([`Store::submit`]).
//! In the background the log is synced, and the memtable is written to redb, after which the log is trimmed.
//!
//! Invariants, in indices of commands: `on disk <= frozen <= active = last of the log`, and `on disk <= durable log`.
//! Reading merges active over frozen over disk. After a crash: tables on disk, then every command of the log behind them.
//! Lost in a power failure: commands that were not synced yet (at most `LOG_SYNC_INTERVAL` old), always the last ones.
//! After a failed write or sync nothing is taken any more and [`Store::failed`] says why.

mod database;
mod log;
mod memtable;
mod table_store;
pub mod tables;

#[cfg(test)]
mod tests;

pub use database::{Database, Position};
pub use table_store::{Machine, OpenError, Snapshot, Store, StoreSettings, lock_directory, make_directory, read_offline};
