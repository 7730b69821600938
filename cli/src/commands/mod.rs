//! One file per command.

mod ask_first;
pub mod bench;
pub mod chunkserver;
pub mod config;
pub mod fsck;
pub mod info;
mod layout;
mod link;
pub mod manual;
pub mod master;
pub mod mount;
pub mod objects;
pub mod policy;
pub mod pools;
pub mod repair;
pub mod servers;
pub mod sessions;
pub mod status;
pub mod token;
pub mod top;
pub mod umount;
pub mod up;

use crate::panics;
use anyhow::{Context, Result, anyhow};
use cairn_runtime::Runtime;
use cairn_runtime::real::{self, RoleSettings};
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

/// Runs a command's work on a thread and runtime of its own, and waits for it. A panic anywhere then ends the process.
fn in_role<T, F>(name: &'static str, work: impl FnOnce(Runtime) -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + 'static,
{
    in_role_with(RoleSettings::default(), name, work)
}

fn in_role_with<T, F>(settings: RoleSettings, name: &'static str, work: impl FnOnce(Runtime) -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + 'static,
{
    panics::end_the_process();
    let thread = real::run_role_with(settings, name, work).with_context(|| format!("cannot start the {name} thread"))?;
    thread.join().map_err(|_| anyhow!("the {name} thread panicked; the reason is above"))?
}

/// Prints to standard output. Whoever reads it may stop when it has seen enough (`| head`).
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write to standard output"),
        _ => Ok(()),
    }
}

/// A chunkserver's role: disks that hang must leave threads to the others.
fn role_for_targets(targets: usize) -> RoleSettings {
    RoleSettings { extra_blocking_threads: targets * cairn_chunkserver::BLOCKED_THREADS_MAX, ..RoleSettings::default() }
}

/// Tells scripts that a role serves, and where.
fn announce_ready(runtime: &Runtime, file: Option<&Path>, address: SocketAddr) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    runtime.disk.replace(file, address.to_string().as_bytes()).with_context(|| format!("cannot write {}", file.display()))
}
