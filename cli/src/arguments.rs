//! The command line.

mod operator;

pub use operator::{
    Bench, Completions, Config, ConfigAction, Info, Locate, Manual, Operator, Policy, PolicyAction, PolicySet, Pool, PoolAction,
    PoolCreate, Session, SessionAction, SessionEvict, Top,
};

use crate::address::MasterAddress;
use crate::logging::Format;
use crate::object_arguments::{
    Cat, Copy, DiskUsage, Find, Head, Link, List, MakeBucket, Move, Remove, RemoveBucket, Stat, Sync, Touch, Tree,
};
use cairn_common::scheme::Scheme;
use cairn_common::wire::master::Role;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// CairnFS: the disks of a few (or a few thousand) machines as one POSIX directory.
#[derive(Debug, Parser)]
#[command(name = "cairn", version, propagate_version = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    /// Tell more (-v: what happens, -vv: everything). RUST_LOG takes precedence.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Append the log to this file instead of writing it to standard error.
    #[arg(long, value_name = "FILE", global = true)]
    pub log: Option<PathBuf>,
    /// Format of the log: text for people, or a JSON object per line.
    #[arg(long, value_name = "FORMAT", global = true, value_enum, default_value_t = Format::Text)]
    pub log_format: Format,
    /// Which profile of ~/.config/cairn/config.toml counts.
    #[arg(long, value_name = "NAME", global = true, env = "CAIRN_PROFILE")]
    pub profile: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster in one process, and mount it: for a laptop, or a first look.
    Up(Up),
    /// Run the metadata master. The first start creates the cluster.
    Master(Master),
    /// Run a chunkserver, which stores data on this machine's disks.
    Chunkserver(Chunkserver),
    /// Mount the file system on a directory.
    Mount(Mount),
    /// Unmount a directory.
    Umount(Umount),
    /// Show the state of the cluster.
    Status(Status),
    /// Check that everything is there and agrees, while the cluster serves. Exits with 0 if so, 1 if something is wrong (and, with --repair, could
    /// not be mended), 2 if it could not be checked.
    Fsck(Fsck),
    /// Create tokens with which machines join the cluster.
    Token(Token),
    /// Copy files and trees into CairnFS, out of it, or within it.
    Cp(Copy),
    /// Move or rename files and trees.
    Mv(Move),
    /// Make one tree like another; only what differs is copied.
    Sync(Sync),
    /// List buckets, directories and files.
    Ls(List),
    /// Show what is known of files and directories.
    Stat(Stat),
    /// Write files to standard output.
    Cat(Cat),
    /// Write the beginning of files to standard output.
    Head(Head),
    /// Find files by name, kind, size or age.
    Find(Find),
    /// Draw a directory with everything below it.
    Tree(Tree),
    /// Add up the sizes of files.
    Du(DiskUsage),
    /// Make buckets.
    Mb(MakeBucket),
    /// Remove buckets.
    Rb(RemoveBucket),
    /// Remove files and directories.
    Rm(Remove),
    /// Make an empty file, or set the time of a file to now.
    Touch(Touch),
    /// Make a symlink, or a further name of a file.
    Ln(Link),
    /// See and end the sessions of clients.
    Session(Session),
    /// See and make pools: how data is spread, and on which disks.
    Pool(Pool),
    /// See and set to which pool the content of new files below a directory goes.
    Policy(Policy),
    /// Show what a file is made of: inode, extents, chunks, which servers have each shard, real space.
    Info(Info),
    /// Show which chunkservers have the content of files.
    Locate(Locate),
    /// Watch what the cluster does: throughput, operations, latencies and queues of every role, repair and scrub.
    Top(Top),
    /// Measure how fast a directory is: big files, small files, metadata.
    Bench(Bench),
    /// Show the settings of ~/.config/cairn/config.toml and where each value comes from.
    Config(Config),
    /// Limit the space of a directory: not there yet.
    Quota,
    /// Print the completions for a shell.
    Completions(Completions),
    /// Print the manual page, or write those of all commands to a directory.
    Man(Manual),
}

#[derive(Debug, Args)]
pub struct Up {
    /// Where the cluster keeps its state and data; found again at the next start.
    #[arg(long, value_name = "DIR", env = "CAIRN_UP_DATA")]
    pub data: Option<PathBuf>,
    /// Where to mount it [default: no mount; use `cairn mount` from anywhere].
    #[arg(long, value_name = "DIR")]
    pub mount: Option<PathBuf>,
    /// How many chunkservers to run. At a later start: at least as many as before.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub chunkservers: u16,
    /// Redundancy: data shards + parity shards [default: 4+2]. Fixed at the first start.
    #[arg(long, value_name = "K+M")]
    pub scheme: Option<Scheme>,
    /// Address of the master, so that other machines or mounts can reach it.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Show metrics over HTTP, for Prometheus: PORT (on this machine alone), or IP:PORT. It is the master's; the chunkservers have the ports after it,
    /// and the mount the one after theirs. They need no password. Port 0: any free ones; the log (-v) says which.
    #[arg(long, value_name = "ADDR", value_parser = metrics_address)]
    pub metrics: Option<SocketAddr>,
    /// Mount options, as for `cairn mount`.
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Master {
    /// Directory of the master's log, tables and keys.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// UDP address to listen on. Port 0: the port it had before, or any free one.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:7440")]
    pub listen: SocketAddr,
    /// Redundancy of the default pool. Counts at the first start alone.
    #[arg(long, value_name = "K+M", default_value = "4+2")]
    pub scheme: Scheme,
    /// Memory for cached tables, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub cache: u64,
    /// How long a chunkserver may be silent before its data is rebuilt elsewhere: 30s, 10m. At least 5 s.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration_seconds)]
    pub dead_after: u64,
    /// How long a client may take to give back a lease that others need before it is fenced: 2s, 10s. At least 2 s.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration_seconds)]
    pub fencing_time: u64,
    /// How long chunks that no file uses any more are kept: 2m to 15m. Counts at the first start alone.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration_seconds)]
    pub deletion_grace: u64,
    /// Write the address to this file once the master serves (for scripts).
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    #[command(flatten)]
    pub metrics: Metrics,
    #[command(subcommand)]
    pub action: Option<MasterAction>,
}

#[derive(Debug, Subcommand)]
pub enum MasterAction {
    /// Write everything the (stopped) master knows to a file, or to standard output.
    Dump {
        /// The file to write; `-` is standard output.
        #[arg(value_name = "FILE", default_value = "-")]
        file: PathBuf,
    },
    /// Fill an empty directory from a dump.
    Load {
        /// The file to read; `-` is standard input.
        #[arg(value_name = "FILE", default_value = "-")]
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Chunkserver {
    #[command(subcommand)]
    pub action: Option<ChunkserverAction>,
    #[command(flatten)]
    pub role: ChunkserverRole,
}

#[derive(Debug, Subcommand)]
pub enum ChunkserverAction {
    /// Show all chunkservers and their disks.
    List(ChunkserverList),
    /// Move everything off a chunkserver, so that it can be removed. It serves what it has meanwhile.
    Drain(ChunkserverChange),
    /// Put a drained chunkserver back into service.
    Undrain(ChunkserverChange),
    /// Forget a drained or dead chunkserver, for good.
    Remove(ChunkserverChange),
}

#[derive(Debug, Args)]
pub struct ChunkserverList {
    #[command(flatten)]
    pub access: Access,
    /// Data directory of a master on this machine, whose own certificate is used.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["token", "identity"])]
    pub data: Option<PathBuf>,
    /// Machine-readable.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ChunkserverChange {
    /// As `cairn chunkserver list` shows it: s3, or 3.
    #[arg(value_name = "ID", value_parser = server_id)]
    pub server: u32,
    /// Do it even if it costs redundancy, or the last copy of something.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub access: Access,
    /// Data directory of a master on this machine, whose own certificate is used.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["token", "identity"])]
    pub data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ChunkserverRole {
    /// Address of the master: HOST, HOST:PORT or an IP address. Remembered after the first start.
    #[arg(long, value_name = "ADDR", env = "CAIRN_MASTER")]
    pub master: Option<MasterAddress>,
    /// Token from `cairn token create --role chunkserver`; needed at the first start alone.
    #[arg(long, value_name = "TOKEN", env = "CAIRN_TOKEN")]
    pub token: Option<String>,
    /// Directory to store data in; give one per disk.
    #[arg(long, value_name = "DIR", required = true)]
    pub data: Vec<PathBuf>,
    /// UDP address to listen on; port 0 is any free one.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:0")]
    pub listen: SocketAddr,
    /// Where this server stands, for spreading data: rack=a, host=b. May be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// How fast lost data is rebuilt onto this server, in MiB a second; a sixteenth of it while clients are at work here.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub repair_rate: u64,
    /// How fast stored data is read over to find rot, in MiB a second and disk [default: a pass in 14 days, at least 1 MiB/s].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub scrub_rate: Option<u64>,
    /// Write the address to this file once the chunkserver serves (for scripts).
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    #[command(flatten)]
    pub metrics: Metrics,
}

/// Where a role shows what it counts.
#[derive(Debug, Clone, Copy, Args)]
pub struct Metrics {
    /// Show metrics over HTTP, for Prometheus: PORT (on this machine alone), or IP:PORT. They need no password. Port 0: any free one; the log says which.
    #[arg(long, value_name = "ADDR", value_parser = metrics_address)]
    pub metrics: Option<SocketAddr>,
}

/// How a client finds and convinces the master.
#[derive(Debug, Clone, Args)]
pub struct Access {
    /// Address of the master: HOST, HOST:PORT or an IP address. Remembered with the client's certificate.
    #[arg(long, value_name = "ADDR", env = "CAIRN_MASTER")]
    pub master: Option<MasterAddress>,
    /// Token from `cairn token create --role client`; needed once, then the stored certificate serves.
    #[arg(long, value_name = "TOKEN", env = "CAIRN_TOKEN")]
    pub token: Option<String>,
    /// Directory of the client's certificate [default: ~/.config/cairn].
    #[arg(long, value_name = "DIR", env = "CAIRN_IDENTITY")]
    pub identity: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Mount {
    #[command(flatten)]
    pub access: Access,
    /// Directory in CairnFS to mount [default: the root], then the local directory.
    #[arg(value_name = "[REMOTE_DIR] DIR", num_args = 1..=2, required = true)]
    pub directories: Vec<PathBuf>,
    /// Mount options, separated by commas: ro, allow_other, nonempty, noexec, ...
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Return when the mount is usable, and serve it in the background. Its log goes to --log, or else to a file `mount-DIR.log`
    /// beside the client's certificate.
    #[arg(long)]
    pub background: bool,
    /// How long operations wait while the master is away before they fail with EIO, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub master_wait: u64,
    /// Memory for data that is written but not yet stored, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub write_buffer: u64,
    /// Memory for cached and read-ahead data, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub cache: u64,
    /// How fast this mount rewrites fragmented files and mostly dead chunks, its own and others', in MiB a second. 0: not at all.
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = clap::value_parser!(u64).range(0..=1 << 20))]
    pub compaction_rate: u64,
    #[command(flatten)]
    pub metrics: Metrics,
}

#[derive(Debug, Args)]
pub struct Umount {
    /// The mount point.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Detach even while files are in use; it goes away when they are closed.
    #[arg(long)]
    pub lazy: bool,
    /// End whatever processes wait for on it, with an error, and detach. Frees what no signal reaches.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub access: Access,
    /// Data directory of a master on this machine, whose own certificate is used.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["token", "identity"])]
    pub data: Option<PathBuf>,
    /// Machine-readable.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Fsck {
    #[command(flatten)]
    pub access: Access,
    /// Data directory of a master on this machine, whose own certificate is used.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["token", "identity"])]
    pub data: Option<PathBuf>,
    /// Have the chunkservers read and hash every shard, not only say whether it is there.
    #[arg(long)]
    pub deep: bool,
    /// Mend what can be mended with certainty, and wait for it.
    #[arg(long)]
    pub repair: bool,
    /// Machine-readable.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Token {
    #[command(subcommand)]
    pub action: TokenAction,
}

#[derive(Debug, Subcommand)]
pub enum TokenAction {
    /// Create a token that lets one machine join.
    Create(TokenCreate),
}

#[derive(Debug, Args)]
pub struct TokenCreate {
    /// What the machine will be.
    #[arg(long)]
    pub role: TokenRole,
    /// How long the token is good for: 90s, 30m, 24h, 7d.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration_seconds)]
    pub ttl: u64,
    /// Data directory of a master on this machine, whose own certificate is used.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["token", "identity"])]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum TokenRole {
    Chunkserver,
    Client,
}

impl From<TokenRole> for Role {
    fn from(role: TokenRole) -> Self {
        match role {
            TokenRole::Chunkserver => Role::Chunkserver,
            TokenRole::Client => Role::Client,
        }
    }
}

fn metrics_address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || "write a port, or an IP address and a port: 9464, 0.0.0.0:9464, [::]:9464".to_owned();
    match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
        Err(_) => text.parse().map_err(|_| wrong()),
    }
}

fn server_id(text: &str) -> Result<u32, String> {
    text.strip_prefix('s').unwrap_or(text).parse().map_err(|_| "write the number of a chunkserver, for example s3".to_owned())
}

pub fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, for example rack=a".to_owned()),
    }
}

pub fn duration_seconds(text: &str) -> Result<u64, String> {
    let wrong = || "write a number and s, m, h or d, for example 30m".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(factor).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_bare_port_of_metrics_is_for_this_machine_alone() {
        let shown = |text| metrics_address(text).map(|address| address.to_string());
        assert_eq!(shown("9464").as_deref(), Ok("127.0.0.1:9464"));
        assert_eq!(shown("0.0.0.0:1").as_deref(), Ok("0.0.0.0:1"));
        for wrong in ["", "host:1", "70000", ":9464"] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration_seconds("30m"), Ok(1800));
        assert_eq!(duration_seconds("7d"), Ok(604_800));
        for wrong in ["", "5", "m", "-3h", "0s", "1y", "99999999999999999999d"] {
            assert!(duration_seconds(wrong).is_err(), "{wrong}");
        }
    }
}
