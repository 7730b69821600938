//! Logs go to standard error, or to a file.

use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// What failures do not say themselves, and why nothing goes on: for commands that name each thing they could not do.
    Troubles,
    /// Only what needs attention: for commands that a person watches.
    Warnings,
    /// Also what a server does: for roles whose log is kept.
    Serving,
    Verbose,
    Debugging,
    Everything,
}

impl Level {
    /// What `-v`, `-vv` and `-vvv` add to the usual level of a command.
    pub fn with_verbosity(self, verbose: u8) -> Self {
        match verbose {
            0 => self,
            1 => Self::Verbose,
            2 => Self::Debugging,
            _ => Self::Everything,
        }
    }

    fn directives(self) -> &'static str {
        match self {
            Self::Troubles => "error,cairn_client::link=warn",
            Self::Warnings => "warn",
            Self::Serving => "warn,cairn=info,cairn_master=info,cairn_chunkserver=info",
            Self::Verbose => "info",
            Self::Debugging => {
                "info,cairn_common=debug,cairn_runtime=debug,cairn_master=debug,cairn_chunkserver=debug,cairn_client=debug,cairn_fuse=debug"
            }
            Self::Everything => "trace",
        }
    }
}

/// Starts logging. RUST_LOG overrides the level.
pub fn start(level: Level, file: Option<&Path>) -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level.directives()));
    // A log that can't be written is no reason to end: whoever read standard error may be gone.
    let logging = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    match file {
        Some(file) => logging.with_writer(Mutex::new(open(file)?)).with_ansi(false).init(),
        None => logging.with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init(),
    }
    Ok(())
}

/// Opens a log to append to.
pub fn open(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("cannot open the log {}", path.display()))
}
