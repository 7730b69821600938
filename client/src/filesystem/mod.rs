//! The file system as a library: what fuse-client and the command line call.
//!
//! One file per family of operations. All of them are safe to cancel: a mutation that was sent is driven to its answer in
//! the background. `fast` has those that answer without waiting, from any thread.

mod access;
mod append;
mod attributes;
mod content;
mod create;
mod directories;
mod fast;
mod handles;
mod io;
mod leases;
mod listing;
mod locks;
mod lookahead;
mod lookup;
mod open;
mod policy;
mod ranges;
mod remove;
mod rename;
mod set_id;
mod start;
mod sync;
mod types;
mod xattrs;

pub use start::FileSystem;
pub use types::{AllocateMode, Handle, OpenFlags, Opened, SeekTarget, WriteAt, Written};
