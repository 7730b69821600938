//! One file per command.

pub mod chunkserver;
pub mod master;
pub mod mount;
pub mod repair;
pub mod servers;
pub mod status;
pub mod token;
pub mod umount;
pub mod up;

use crate::panics;
use anyhow::{Context, Result, anyhow};
use cairn_runtime::Runtime;
use cairn_runtime::real;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;

/// Runs a command's work on a thread and runtime of its own, and waits for it. A panic anywhere then ends the process.
fn in_role<F>(name: &'static str, work: impl FnOnce(Runtime) -> F + Send + 'static) -> Result<()>
where
    F: Future<Output = Result<()>> + 'static,
{
    panics::end_the_process();
    let thread = real::run_role(name, work).with_context(|| format!("cannot start the {name} thread"))?;
    thread.join().map_err(|_| anyhow!("the {name} thread panicked; the reason is above"))?
}

/// Tells scripts that a role serves, and where.
fn announce_ready(runtime: &Runtime, file: Option<&Path>, address: SocketAddr) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    runtime.disk.replace(file, address.to_string().as_bytes()).with_context(|| format!("cannot write {}", file.display()))
}

/// A file of the user's, outside any store of ours.
fn local_file_to_write(path: &Path) -> Result<std::fs::File> {
    std::fs::OpenOptions::new().write(true).create_new(true).open(path).with_context(|| format!("cannot make {}", path.display()))
}

fn local_file_to_read(path: &Path) -> Result<std::io::BufReader<std::fs::File>> {
    let file = std::fs::OpenOptions::new().read(true).open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(std::io::BufReader::new(file))
}
