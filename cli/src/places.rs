//! Where things are kept when nobody says otherwise.

use crate::arguments::Access;
use crate::commands::master::operator_directory;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The client's identity. Who has joined no cluster, and names none, means the one that `cairn up` runs here, if it does.
pub fn identity(access: &Access) -> Result<PathBuf> {
    if let Some(directory) = &access.identity {
        return Ok(directory.clone());
    }
    let joined = default_identity()?;
    let local = operator_directory(&default_cluster()?.join("master"));
    let has_certificate = |directory: &PathBuf| directory.join("certificate").exists();
    let names_none = access.master.is_none() && access.token.is_none();
    Ok(if names_none && !has_certificate(&joined) && has_certificate(&local) { local } else { joined })
}

/// `~/.config/cairn`.
pub fn default_identity() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CONFIG_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => home()?.join(".config"),
    };
    Ok(base.join("cairn"))
}

/// The state of `cairn up`: `~/.local/share/cairn`.
pub fn default_cluster() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_DATA_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => home()?.join(".local/share"),
    };
    Ok(base.join("cairn"))
}

/// Refuses to keep a cluster's data on a mount of CairnFS: if it is the cluster's own, each waits for the other for ever.
pub fn check_not_on_cairn(data: &Path) -> Result<()> {
    let existing = data.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    anyhow::ensure!(
        !existing.as_deref().is_some_and(is_on_cairn),
        "{} is on a mount of CairnFS, which cannot keep its own data: choose a directory on a local disk",
        data.display()
    );
    Ok(())
}

/// Whether a path without symlinks and dots is on a mount of CairnFS.
pub fn is_on_cairn(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // Mounted by root directly, it is a `fuse` from `cairn`; mounted by fusermount3, it has a type of its own.
    matches!(file_system_of(&mounts, path), Some(("fuse.cairn", _) | ("fuse", "cairn")))
}

/// The type and the source of the file system that a directory is on, from the lines of mountinfo: the innermost mount, and of several at one place the last.
fn file_system_of<'m>(mounts: &'m str, directory: &Path) -> Option<(&'m str, &'m str)> {
    let around = mounts.lines().filter_map(|line| {
        let place = line.split(' ').nth(4)?;
        let (kind, source) =
            line.split(" - ").nth(1)?.split_once(' ').map(|(kind, rest)| (kind, rest.split(' ').next().unwrap_or_default()))?;
        // Blanks are written as octal numbers.
        let place = place.replace("\\040", " ");
        directory.starts_with(&place).then_some((place.len(), (kind, source)))
    });
    around.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

pub fn home() -> Result<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).context("HOME is not set: say where with --data or --identity")
}

#[cfg(test)]
mod tests {
    use super::file_system_of;
    use std::path::Path;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "22 1 8:1 / / rw - ext4 /dev/sda rw\n\
                      40 22 0:30 / /mnt/my\\040cairn rw,nosuid shared:1 - fuse.cairn cairn rw\n\
                      41 40 0:31 / /mnt/my\\040cairn/tmp rw - tmpfs none rw\n";
        let kind = |directory: &str| file_system_of(mounts, Path::new(directory)).map(|(kind, _)| kind);
        assert_eq!(kind("/mnt/my cairn/data"), Some("fuse.cairn"));
        assert_eq!(kind("/mnt/my cairn/tmp/data"), Some("tmpfs"));
        assert_eq!(kind("/mnt/my cairns"), Some("ext4"));
        assert_eq!(file_system_of("", Path::new("/")), None);
    }
}
