//! Logs go to standard error, or to a file.

use anyhow::{Context, Result};
use clap::ValueEnum;
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

/// For whom the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people: a line of text for each event.
    #[default]
    Text,
    /// For machines: a JSON object in a line for each event, with `timestamp`, `level`, `target` and `fields`, of which `message` is the sentence.
    Json,
}

/// Starts logging. RUST_LOG overrides the level.
pub fn start(level: Level, format: Format, file: Option<&Path>) -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level.directives()));
    // A log that can't be written is no reason to end: whoever read standard error may be gone.
    let logging = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    let file = file.map(open).transpose()?.map(Mutex::new);
    match (format, file) {
        (Format::Text, Some(file)) => logging.with_writer(file).with_ansi(false).init(),
        (Format::Text, None) => logging.with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init(),
        (Format::Json, Some(file)) => logging.json().with_writer(file).init(),
        (Format::Json, None) => logging.json().with_writer(std::io::stderr).init(),
    }
    Ok(())
}

/// Whether standard error goes to this file.
pub fn is_standard_error(path: &Path) -> bool {
    let place = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    let (named, own) = (rustix::fs::stat(path).map(place), rustix::fs::fstat(std::io::stderr()).map(place));
    named.is_ok() && named == own
}

/// The sentence of an error in a line of a log, in either format.
pub fn error_in(line: &str) -> Option<String> {
    if let Some(sentence) = line.strip_prefix("cairn: ") {
        return Some(sentence.to_owned());
    }
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    (event["level"] == "ERROR").then(|| event["fields"]["message"].as_str().map(ToOwned::to_owned)).flatten()
}

/// Opens a log to append to.
pub fn open(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("cannot open the log {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::error_in;

    #[test]
    fn the_sentence_of_an_error_is_found_in_both_formats() {
        assert_eq!(error_in("cairn: no such thing").as_deref(), Some("no such thing"));
        let event = r#"{"timestamp":"x","level":"ERROR","fields":{"message":"no such thing"},"target":"cairn"}"#;
        assert_eq!(error_in(event).as_deref(), Some("no such thing"));
        assert_eq!(error_in(&event.replace("ERROR", "WARN")), None);
        assert_eq!(error_in("2026-11-26 WARN something"), None);
    }
}
