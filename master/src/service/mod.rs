//! The role of the master: the state machine behind one port, and everything that is not worth a place in the log.
//!
//! - [`run`](run::run) starts and ends it; [`identity`] keeps its keys; [`connections`] reads calls and checks who may ask what.
//! - [`master`] is what all parts share: the store, and the way of a command into it.
//! - [`namespace`], [`cluster`], [`join`], [`locks`] answer requests, one file per family.
//! - [`session_table`] and [`server_table`] are soft state: who has what open, who was heard when. Pure, lost with the process;
//!   clients and chunkservers bring it back when they return.
//! - [`leases`] recalls what stands in the way of a request, by [`crate::lease`], and fences those who do not answer.
//! - [`placing`] decides when slots move; [`operator`] what drain, undrain and remove mean. Pure.
//! - [`metrics`] counts, and shows what it counted.
//! - [`check`] runs checks of the tables for `cairn fsck`.
//! - [`background`] does what nobody asks for: ends silent sessions, watches targets, removes extents, collects chunks.
//!
//! Everything runs on one thread, and between a look at the state and the command that rests on it there is no await.

mod background;
mod check;
mod cluster;
mod collector;
mod compaction;
mod connections;
mod identity;
mod join;
mod leases;
mod locks;
mod master;
mod metrics;
mod namespace;
mod operator;
mod placing;
mod run;
mod server_table;
mod session_table;
mod settings;
mod status;

#[cfg(test)]
mod tests;

pub use master::Namespace;
pub use run::{Serving, run};
pub use settings::{Settings, StartError};
