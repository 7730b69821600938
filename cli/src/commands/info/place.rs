//! A path and the inode that it names.

use crate::commands::link::Link;
use crate::places::is_on_cairn;
use anyhow::{Context, Result, bail};
use cairn_common::attributes::Attributes;
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::wire::master::{MasterError, MasterReply, MasterRequest};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How paths in CairnFS begin that need no mount.
const SCHEME: &str = "cairn://";

/// A path that names something.
pub struct Place {
    /// As it was given.
    pub path: String,
    pub attributes: Attributes,
}

impl Place {
    /// Finds `cairn://dir/file`, or a path inside a mount.
    pub async fn find(link: &mut Link, path: &OsStr) -> Result<Self> {
        let shown = path.to_string_lossy().into_owned();
        let attributes = match path.as_bytes().strip_prefix(SCHEME.as_bytes()) {
            Some(remote) => walk(link, &shown, remote).await?,
            None => attributes(link, &shown, mounted(Path::new(path))?).await?,
        };
        Ok(Self { path: shown, attributes })
    }
}

/// From the root, name by name. Symbolic links are shown, not followed.
async fn walk(link: &mut Link, shown: &str, remote: &[u8]) -> Result<Attributes> {
    let mut found = attributes(link, shown, Ino::ROOT).await?;
    for name in remote.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        found = expect_attributes(link, shown, MasterRequest::Lookup { parent: found.ino, name: name.to_vec() }).await?;
    }
    Ok(found)
}

async fn attributes(link: &mut Link, shown: &str, ino: Ino) -> Result<Attributes> {
    expect_attributes(link, shown, MasterRequest::Attributes { ino }).await
}

async fn expect_attributes(link: &mut Link, shown: &str, request: MasterRequest) -> Result<Attributes> {
    let answer = link.ask(&request).await;
    let absent =
        || anyhow::anyhow!("{shown} does not exist in the cluster that was asked: is it the one of the mount (--master, --identity)?");
    match answer.map_err(|error| match error.downcast_ref::<MasterError>() {
        Some(MasterError::Fs(FsError::NotFound | FsError::Stale)) => absent(),
        Some(MasterError::Fs(FsError::NotDirectory)) => anyhow::anyhow!("{shown} leads through something that is not a directory"),
        _ => error,
    })? {
        MasterReply::Attributes(attributes) => Ok(attributes),
        MasterReply::NoSuchName => Err(absent()),
        other => bail!("the master answered something else to a look-up: {other:?}"),
    }
}

/// The inode of a path inside a mount: `stat` shows its number, also where a subdirectory is mounted.
fn mounted(path: &Path) -> Result<Ino> {
    let cannot = || format!("cannot look at {}", path.display());
    let metadata = path.symlink_metadata().with_context(cannot)?;
    // The last name is not followed, wherever it leads.
    let real = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            parent.canonicalize().with_context(cannot)?.join(name)
        }
        _ => path.canonicalize().with_context(cannot)?,
    };
    if !is_on_cairn(&real) {
        bail!("{} is not on a mount of CairnFS: give a path inside one, or {SCHEME}DIR/FILE", path.display());
    }
    Ok(Ino(metadata.ino()))
}
