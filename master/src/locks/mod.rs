//! Locks across clients: who holds what, who waits for what, and how each call of a session is done exactly once. Pure; soft state, beside
//! the sessions: after a restart of the master the clients say what they hold before anybody may take anything new.
//!
//! - [`table`]: grants, waits, deadlocks.
//! - [`calls`]: the calls of the sessions, in their order, with their answers.
//!
//! docs/decisions/2026-11-26-locks-in-memory.md says why they are not in the tables.

mod calls;
mod table;

pub use calls::{LockDesk, Ruling, Turn};
pub use table::Ticket;
