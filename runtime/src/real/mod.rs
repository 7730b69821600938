//! The real machine: Linux, tokio and QUIC.

pub mod clock;
mod descriptors;
pub mod disk;
pub mod entropy;
pub mod executor;
pub mod network;
pub mod role;
mod spin;

pub use role::{RoleSettings, run_role, run_role_here, run_role_with};

use crate::Runtime;
use std::sync::Arc;
use tokio::runtime::Handle;

/// This machine, with its tasks, timers and sockets on the tokio runtime of `handle`.
pub fn machine(handle: Handle) -> Runtime {
    Runtime {
        clock: Arc::new(clock::RealClock::new(handle.clone())),
        executor: Arc::new(executor::TokioExecutor::new(handle.clone())),
        entropy: Arc::new(entropy::OsEntropy),
        network: Arc::new(network::QuicNetwork::new(handle)),
        disk: Arc::new(disk::RealDisk),
    }
}
