//! The commands of operators.

use super::{Access, label};
use crate::commands::token::operator;
use crate::identity::Membership;
use anyhow::Result;
use cairn_common::scheme::Scheme;
use cairn_runtime::Runtime;
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// How an operator's command finds and convinces the master.
#[derive(Debug, Clone, Args)]
pub struct Operator {
    #[command(flatten)]
    pub access: Access,
    /// Data directory of a master on this machine, whose own certificate is used.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["token", "identity"])]
    pub data: Option<PathBuf>,
}

impl Operator {
    pub async fn membership(&self, runtime: &Runtime) -> Result<Membership> {
        operator(runtime, &self.access, self.data.as_deref()).await
    }
}

#[derive(Debug, Args)]
pub struct Session {
    #[command(subcommand)]
    pub action: SessionAction,
}

#[derive(Debug, Subcommand)]
pub enum SessionAction {
    /// Show the clients of the cluster.
    List {
        #[command(flatten)]
        operator: Operator,
        /// Machine-readable.
        #[arg(long)]
        json: bool,
    },
    /// End the session of a client that is gone or must go. One that lives comes back with a new session.
    Evict(SessionEvict),
}

#[derive(Debug, Args)]
pub struct SessionEvict {
    /// As `cairn session list` shows it: c7, or 7.
    #[arg(value_name = "ID", value_parser = session_id)]
    pub session: u64,
    /// Do it without asking.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub operator: Operator,
}

fn session_id(text: &str) -> Result<u64, String> {
    text.strip_prefix('c').unwrap_or(text).parse().map_err(|_| "write the number of a session, for example c7".to_owned())
}

#[derive(Debug, Args)]
pub struct Pool {
    #[command(subcommand)]
    pub action: PoolAction,
}

#[derive(Debug, Subcommand)]
pub enum PoolAction {
    /// Show all pools.
    List {
        #[command(flatten)]
        operator: Operator,
        /// Machine-readable.
        #[arg(long)]
        json: bool,
    },
    /// Show a pool and the disks that hold its slots.
    Show {
        /// As `cairn pool list` shows it.
        #[arg(value_name = "NAME", default_value = "default")]
        name: String,
        #[command(flatten)]
        operator: Operator,
        /// Machine-readable.
        #[arg(long)]
        json: bool,
    },
    /// Make a pool. Content goes there once a directory's policy says so (`cairn policy set`). Pools stay for good.
    Create(PoolCreate),
}

#[derive(Debug, Args)]
pub struct PoolCreate {
    /// Letters, digits, dots, dashes and underscores.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Redundancy: data shards + parity shards. 1+2 is three copies.
    #[arg(long, value_name = "K+M", default_value = "4+2")]
    pub scheme: Scheme,
    /// Only on chunkservers that were started with all of these labels: media=ssd,site=a [default: on all].
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Make it even if it can't be spread so that a host may be lost.
    #[arg(long)]
    pub yes: bool,
    /// Machine-readable.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub operator: Operator,
}

#[derive(Debug, Args)]
pub struct Policy {
    #[command(subcommand)]
    pub action: PolicyAction,
}

#[derive(Debug, Subcommand)]
pub enum PolicyAction {
    /// Show to which pool content goes: of a directory, that of new files below it; of a file, its own.
    Get {
        /// A path inside a mount, or cairn://DIR/FILE.
        #[arg(value_name = "PATH")]
        path: OsString,
        #[command(flatten)]
        operator: Operator,
        /// Machine-readable.
        #[arg(long)]
        json: bool,
    },
    /// Say to which pool the content of new files below a directory goes. Files that exist stay where they are until they are copied.
    #[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["pool", "scheme", "labels", "inherit"]))]
    Set(PolicySet),
}

#[derive(Debug, Args)]
pub struct PolicySet {
    /// A directory inside a mount, or cairn://DIR. `cairn://` is the root.
    #[arg(value_name = "PATH")]
    pub path: OsString,
    /// The pool, as `cairn pool list` shows it.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["scheme", "labels", "inherit"])]
    pub pool: Option<String>,
    /// The pool that has this scheme, and exactly the labels given.
    #[arg(long, value_name = "K+M", conflicts_with = "inherit")]
    pub scheme: Option<Scheme>,
    /// The pool that wants exactly these labels, and has the scheme given, if any.
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',', value_parser = label, conflicts_with = "inherit")]
    pub labels: Vec<(String, String)>,
    /// No policy of its own: as the directories above say.
    #[arg(long)]
    pub inherit: bool,
    /// Machine-readable.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub operator: Operator,
}

#[derive(Debug, Args)]
pub struct Info {
    /// A path inside a mount, or cairn://DIR/FILE.
    #[arg(value_name = "PATH")]
    pub path: OsString,
    /// Also show every chunk, and where each of its shards is.
    #[arg(long)]
    pub chunks: bool,
    /// Machine-readable, with everything.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub operator: Operator,
}

#[derive(Debug, Args)]
pub struct Locate {
    /// Paths inside a mount, or cairn://DIR/FILE.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<OsString>,
    /// Machine-readable.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub operator: Operator,
}

#[derive(Debug, Args)]
pub struct Top {
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
    /// Print one picture, once there is enough to tell rates (some seconds), and end.
    #[arg(long)]
    pub once: bool,
    /// Width of that picture.
    #[arg(long, value_name = "COLUMNS", default_value_t = 120, value_parser = clap::value_parser!(u16).range(80..=500))]
    pub width: u16,
    #[command(flatten)]
    pub operator: Operator,
}

#[derive(Debug, Args)]
pub struct Bench {
    /// A directory, usually on a mount. What is made there is removed in the end.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Size of the big file of each thread, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub big_size: u64,
    /// Small files (128 KiB) of each thread.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub small_files: u32,
    /// Threads that work side by side.
    #[arg(short = 'p', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Machine-readable.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Config {
    #[command(subcommand)]
    pub action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Show every setting, and where its value comes from: a flag, the environment, the profile or the default.
    Show {
        #[command(flatten)]
        access: Access,
        /// Machine-readable.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub struct Completions {
    /// bash: put it into /usr/share/bash-completion/completions/cairn; zsh: into _cairn on $fpath; fish: into ~/.config/fish/completions/cairn.fish.
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct Manual {
    /// Write the pages of all commands into this directory (for example /usr/share/man/man1), instead of printing cairn(1).
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
