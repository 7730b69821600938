//! The master: it keeps the namespace, and knows who takes part in the cluster.
//!
//! - [`state`]: a deterministic state machine, `apply(command) -> outcome` over ordered tables; its keys are in [`keys`].
//! - [`store`]: those tables on a disk: a command log, and a memtable over redb behind it.
//! - [`service`]: the role: sessions, chunkservers, the network, and what is done in the background.
//! - [`lease`]: who may believe what without asking. Pure.
//! - [`check`]: whether the tables agree with each other in every row; what sets right what does not is a command of the state machine.
//! - [`dump`]: all rows as text, and back.

pub mod check;
pub mod dump;
pub mod keys;
pub mod lease;
pub mod locks;
pub mod service;
pub mod state;
pub mod store;
