//! A path and the inode that it names.

use crate::commands::link::Link;
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
    match answer.map_err(|error| match error.downcast_ref::<MasterError>() {
        Some(MasterError::Fs(FsError::NotFound | FsError::Stale)) => {
            anyhow::anyhow!("{shown} does not exist in the cluster that was asked: is it the one of the mount (--master, --identity)?")
        }
        Some(MasterError::Fs(FsError::NotDirectory)) => anyhow::anyhow!("{shown} leads through something that is not a directory"),
        _ => error,
    })? {
        MasterReply::Attributes(attributes) => Ok(attributes),
        other => bail!("the master answered something else to a look-up: {other:?}"),
    }
}

/// The inode of a path inside a mount: the kernel knows it by the same number.
fn mounted(path: &Path) -> Result<Ino> {
    let metadata = path.symlink_metadata().with_context(|| format!("cannot look at {}", path.display()))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read the table of mounts")?;
    let device = format!("{}:{}", rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    if !is_cairn(&mounts, &device) {
        bail!("{} is not on a mount of CairnFS: give a path inside one, or {SCHEME}DIR/FILE", path.display());
    }
    Ok(Ino(metadata.ino()))
}

/// Whether a device of the table of mounts (`MAJOR:MINOR`) is one of ours.
fn is_cairn(mountinfo: &str, device: &str) -> bool {
    mountinfo.lines().any(|line| {
        let is_device = line.split(' ').nth(2) == Some(device);
        let kind = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next());
        is_device && kind == Some("fuse.cairn")
    })
}

#[cfg(test)]
mod tests {
    use super::is_cairn;

    #[test]
    fn mounts_of_ours_are_told_by_their_type() {
        let table = "24 1 0:22 / /proc rw - proc proc rw\n99 1 0:51 / /mnt/a rw,nosuid shared:7 - fuse.cairn cairn rw,user_id=0\n";
        assert!(is_cairn(table, "0:51"));
        assert!(!is_cairn(table, "0:22") && !is_cairn(table, "0:5"));
    }
}
