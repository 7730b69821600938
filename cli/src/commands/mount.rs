//! `cairn mount`

use crate::arguments::Mount;
use crate::identity::{Wanted, membership};
use crate::{places, signals};
use anyhow::{Context, Result, bail};
use cairn_client::{FileSystem, Settings};
use cairn_common::attributes::FileKind;
use cairn_common::ids::Ino;
use cairn_common::wire::master::Role;
use cairn_fuse::{MountOptions, Mounted};
use cairn_runtime::Runtime;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often a mount looks whether somebody else has unmounted it.
const GONE_CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// The line with which the process in the background says that its mount is usable.
const USABLE: &str = "CairnFS is mounted on ";

pub fn run(options: Mount) -> Result<()> {
    if options.background {
        return in_background();
    }
    super::in_role("mount", |runtime| async move { serve(runtime, options).await })
}

async fn serve(runtime: Runtime, options: Mount) -> Result<()> {
    let mount_options = mount_options(&options.options)?;
    let (remote, directory) = places_of(&options.directories);
    let identity = match &options.access.identity {
        Some(identity) => identity.clone(),
        None => places::default_identity()?,
    };
    let access = &options.access;
    let wanted = Wanted { role: Role::Client, directory: &identity, master: access.master, token: access.token.as_deref() };
    let member = membership(&runtime, wanted).await?;
    let mut settings = Settings::new(member.master, member.credentials);
    settings.description = format!("mount on {}", directory.display());
    settings.master_wait = Duration::from_secs(options.master_wait);
    settings.write_buffer_bytes = (options.write_buffer as usize) << 20;
    settings.block_cache_bytes = (options.cache as usize) << 20;
    let fs = FileSystem::connect(runtime.clone(), settings).await?;
    let outcome = serve_mount(&runtime, &fs, remote.as_deref(), &directory, mount_options).await;
    let flushed = fs.shutdown().await;
    outcome?;
    flushed.context("some data could not be stored before the end")
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

/// Starts this command again without `--background`, detached, and returns once it says that the mount is usable.
fn in_background() -> Result<()> {
    use std::os::unix::process::CommandExt;
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--background");
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
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
    let mut errors = String::new();
    child.stderr.take().context("no errors of the background process")?.read_to_string(&mut errors)?;
    child.wait()?;
    bail!("{}", errors.trim().trim_start_matches("cairn: "))
}
