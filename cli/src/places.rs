//! Where things are kept when nobody says otherwise.

use anyhow::{Context, Result};
use std::path::PathBuf;

/// The client's identity: `~/.config/cairn`.
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

fn home() -> Result<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).context("HOME is not set: say where with --data or --identity")
}
