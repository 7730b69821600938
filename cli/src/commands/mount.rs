//! `cairn mount`

use crate::arguments::Mount;
use crate::identity::{Wanted, make_private, membership};
use crate::local_file::file_to_read;
use crate::{logging, places, signals};
use anyhow::{Context, Result, bail};
use cairn_client::{FileSystem, Settings};
use cairn_common::attributes::FileKind;
use cairn_common::ids::Ino;
use cairn_common::wire::master::Role;
use cairn_fuse::{MountOptions, Mounted};
use cairn_runtime::Runtime;
use cairn_runtime::network::Published;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How often a mount looks whether somebody else has unmounted it.
const GONE_CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// The line with which the process in the background says that its mount is usable.
const USABLE: &str = "CairnFS is mounted on ";
/// A log that is longer when a mount starts in the background is begun anew.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// `words`: the command line.
pub fn run(options: Mount, log: Option<&Path>, words: &[OsString]) -> Result<()> {
    if options.background {
        let log = match log {
            Some(log) => log.to_owned(),
            None => usual_log(&options)?,
        };
        return in_background(&log, words);
    }
    super::in_role("mount", |runtime| async move { serve(runtime, options).await })
}

async fn serve(runtime: Runtime, options: Mount) -> Result<()> {
    let mount_options = mount_options(&options.options)?;
    let (remote, directory) = places_of(&options.directories);
    let access = &options.access;
    let identity = places::identity(access)?;
    let wanted = Wanted { role: Role::Client, directory: &identity, master: access.master.clone(), token: access.token.as_deref() };
    let member = membership(&runtime, wanted).await?;
    let mut settings = Settings::new(member.master, member.credentials);
    settings.description = format!("mount on {}", directory.display());
    settings.master_wait = Duration::from_secs(options.master_wait);
    settings.write_buffer_bytes = (options.write_buffer as usize) << 20;
    settings.block_cache_bytes = (options.cache as usize) << 20;
    settings.compaction_bytes_per_second = options.compaction_rate << 20;
    settings.access_times = mount_options.records_access();
    let fs = FileSystem::connect(runtime.clone(), settings).await?;
    let outcome = match publish_metrics(&runtime, &fs, options.metrics.metrics) {
        Ok(_published) => serve_mount(&runtime, &fs, remote.as_deref(), &directory, mount_options).await,
        Err(error) => Err(error),
    };
    let flushed = fs.shutdown().await;
    outcome?;
    flushed.context("some data could not be stored before the end")
}

/// Shows metrics, if anybody wants to see them.
pub fn publish_metrics(runtime: &Runtime, fs: &FileSystem, address: Option<SocketAddr>) -> Result<Option<Published>> {
    let Some(address) = address else { return Ok(None) };
    let shown = fs.clone();
    let published = runtime.network.publish(address, Arc::new(move || shown.metrics_page())).context("metrics can't be shown")?;
    tracing::info!("metrics are at http://{}/metrics", published.address);
    Ok(Some(published))
}

async fn serve_mount(runtime: &Runtime, fs: &FileSystem, remote: Option<&Path>, directory: &Path, options: MountOptions) -> Result<()> {
    let mounted = mount_at(runtime, fs, remote, directory, options).await?;
    println!("{USABLE}{}", directory.display());
    wait_for_the_end(runtime, &mounted).await;
    runtime.blocking(move || mounted.unmount()).await?;
    Ok(())
}

/// Mounts `remote` (the root by default) on a local directory.
pub async fn mount_at(
    runtime: &Runtime,
    fs: &FileSystem,
    remote: Option<&Path>,
    directory: &Path,
    options: MountOptions,
) -> Result<Mounted> {
    let root = match remote {
        None => Ino::ROOT,
        Some(remote) => {
            let found = fs
                .resolve(remote.as_os_str().as_encoded_bytes())
                .await
                .with_context(|| format!("cannot find {} in CairnFS", remote.display()))?;
            if found.kind != FileKind::Directory {
                bail!("{} in CairnFS is not a directory", remote.display());
            }
            found.ino
        }
    };
    let (machine, fs, directory) = (runtime.clone(), fs.clone(), directory.to_owned());
    Ok(runtime.blocking(move || cairn_fuse::mount(machine, fs, root, &directory, &options)).await?)
}

pub fn mount_options(lists: &[String]) -> Result<MountOptions> {
    let mut options = MountOptions::default();
    lists.iter().try_for_each(|list| options.add(list))?;
    Ok(options)
}

/// Until a signal asks for the end, or somebody has unmounted it.
async fn wait_for_the_end(runtime: &Runtime, mounted: &Mounted) {
    let gone = async {
        while !mounted.is_gone() {
            runtime.sleep(GONE_CHECK_INTERVAL).await;
        }
    };
    tokio::select! {
        biased;
        () = signals::asked_to_stop() => {}
        () = gone => {}
    }
}

fn places_of(directories: &[PathBuf]) -> (Option<PathBuf>, PathBuf) {
    match directories {
        [remote, local] => (Some(remote.clone()), local.clone()),
        [local] => (None, local.clone()),
        _ => unreachable!("clap takes one or two directories"),
    }
}

/// Where a mount in the background writes its log if nobody says otherwise: `mount-srv-data.log` for a mount on /srv/data.
fn usual_log(options: &Mount) -> Result<PathBuf> {
    let identity = places::identity(&options.access)?;
    let (_, directory) = places_of(&options.directories);
    // Made absolute without looking at it: a mount whose process died can't be looked at.
    let directory = std::path::absolute(directory)?;
    let name: Vec<_> = directory.iter().skip(1).map(|part| part.to_string_lossy()).collect();
    make_private(&identity)?;
    Ok(identity.join(format!("mount-{}.log", name.join("-"))))
}

/// Starts this command again without `--background`, detached, and returns once it says that the mount is usable.
fn in_background(log: &Path, words: &[OsString]) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let arguments = words.iter().skip(1).filter(|word| *word != "--background");
    let errors = logging::open(log)?;
    if errors.metadata()?.len() > LOG_BYTES_MAX {
        errors.set_len(0)?;
    }
    let before = errors.metadata()?.len();
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .process_group(0)
        .spawn()
        .context("cannot start the background process")?;
    let mut said = String::new();
    let output = child.stdout.take().context("no output of the background process")?;
    BufReader::new(output).read_line(&mut said)?;
    if said.starts_with(USABLE) {
        print!("{said}");
        return Ok(());
    }
    child.wait()?;
    bail!("{}", last_error(log, before)?)
}

/// What the background process said before it ended.
fn last_error(log: &Path, from: u64) -> Result<String> {
    let mut file = file_to_read(log)?;
    file.seek(SeekFrom::Start(from))?;
    let mut said = String::new();
    file.read_to_string(&mut said)?;
    let last = said.lines().rev().find_map(logging::error_in);
    Ok(last.unwrap_or_else(|| format!("the background process ended without a word; its log is {}", log.display())))
}
