//! Logs go to standard error.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging: warnings and worse, and what `verbose` adds. RUST_LOG overrides.
pub fn start(verbose: u8) {
    let level = match verbose {
        0 => "warn,cairn=info,cairn_master=info,cairn_chunkserver=info",
        1 => "info",
        2 => "info,cairn_common=debug,cairn_runtime=debug,cairn_master=debug,cairn_chunkserver=debug,cairn_client=debug,cairn_fuse=debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init();
}
