//! The commands for users' files: parse, call `cairn_objects`, print.

mod confirm;
pub mod copy;
pub mod list;
pub mod moving;
pub mod names;
mod output;
mod progress;
pub mod read;
pub mod remove;
pub mod search;
mod tally;
pub mod usage;

use crate::arguments::Access;
use crate::identity::{Wanted, membership};
use crate::places;
use anyhow::{Context, Result};
use cairn_client::{FileSystem, Settings};
use cairn_common::wire::master::Role;
use cairn_objects::{Caller, Store};
use cairn_runtime::Runtime;
use output::is_broken_pipe;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;
use tally::Tally;

/// How long a command waits for a master that is away: a restart, but not a night.
const MASTER_WAIT: Duration = Duration::from_secs(60);
/// Less than the pool of buffers keeps (`cairn_common::buffer`): beyond that each chunk is read into memory that was never touched, at a third of the speed.
const WRITE_BUFFER_BYTES: usize = 96 << 20;
/// A command reads little twice.
const CACHE_BYTES: usize = 64 << 20;
/// The command line was right in itself, but not for what was found.
const USAGE: u8 = 2;

/// Connects, does a command's work as this user, and says goodbye. What failed for single things is in the tally, and makes the exit code.
fn with_store<F>(access: Access, work: impl FnOnce(Store, Tally) -> F + Send + 'static) -> Result<ExitCode>
where
    F: Future<Output = Result<()>> + 'static,
{
    // Before there are other threads.
    let caller = Caller::of_this_process();
    super::in_role("cairn", move |runtime| async move {
        let store = Store::new(connect(&runtime, &access).await?, runtime, caller);
        let tally = Tally::default();
        let outcome = work(store.clone(), tally.clone()).await;
        let flushed = store.fs.shutdown().await;
        match outcome {
            // Whoever reads has seen enough.
            Err(error) if is_broken_pipe(&error) => {}
            outcome => outcome?,
        }
        flushed.context("some data could not be stored before the end")?;
        Ok(tally.exit_code())
    })
}

async fn connect(runtime: &Runtime, access: &Access) -> Result<FileSystem> {
    let identity = places::identity(access)?;
    let wanted = Wanted { role: Role::Client, directory: &identity, master: access.master.clone(), token: access.token.as_deref() };
    let member = membership(runtime, wanted).await?;
    let mut settings = Settings::new(member.master, member.credentials);
    settings.description = format!("{} of process {}", std::env::args().nth(1).unwrap_or_default(), std::process::id());
    settings.master_wait = MASTER_WAIT;
    settings.block_cache_bytes = CACHE_BYTES;
    settings.write_buffer_bytes = WRITE_BUFFER_BYTES;
    // Ranges are asked for in parallel; nothing has to be guessed.
    settings.readahead_bytes = 0;
    settings.compaction_bytes_per_second = 0;
    Ok(FileSystem::connect(runtime.clone(), settings).await?)
}
