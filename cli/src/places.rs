//! Where things are kept when nobody says otherwise.

use crate::arguments::Access;
use crate::commands::master::operator_directory;
use anyhow::{Context, Result};
use std::path::PathBuf;

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
fn default_identity() -> Result<PathBuf> {
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

fn home() -> Result<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).context("HOME is not set: say where with --data or --identity")
}
