//! The command log: every command that the master ever took in and that the tables on disk do not hold yet.
//!
//! Invariants: `durable <= last`; every record up to `durable` survives a power loss; what survives is always a prefix of what
//! was appended (no record without all before it). After a failed write or sync the log takes nothing more.

mod command_log;
pub mod record;
pub mod recover;
pub mod segment;

pub use command_log::CommandLog;
