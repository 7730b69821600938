//! The `cairn` binary: every role and every tool behind one command.

mod address;
mod arguments;
mod commands;
mod config;
mod identity;
mod local_file;
mod logging;
mod mount_helper;
mod object_arguments;
mod panics;
mod places;
mod signals;

use anyhow::Result;
use arguments::{Arguments, Command};
use clap::ArgMatches;
use commands::objects;
use config::Config;
use logging::{Format, Level};
use mount_helper::Called;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Small messages are most of what every role allocates, across threads; glibc's arenas grow and shrink by system calls under that load.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As clap has it.
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    let Called::Words(words) = mount_helper::words(std::env::args_os().collect()) else { return ExitCode::SUCCESS };
    let line = match config::parse(&words) {
        Ok((arguments, config, said)) => CommandLine { words, arguments, config, said },
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "cairn: {}", sentence(&error));
            return ExitCode::from(WRONG_USE);
        }
    };
    let failure = match line.arguments.command {
        Command::Fsck(_) => ExitCode::from(commands::fsck::NOT_CHECKED),
        _ => ExitCode::FAILURE,
    };
    match run(line) {
        Ok(code) => code,
        Err(Failure { error, is_told }) => {
            if !is_told {
                // Whoever reads standard error may be gone; a log that is a file keeps it.
                let _ = writeln!(std::io::stderr(), "cairn: {}", sentence(&error));
            }
            failure
        }
    }
}

/// Why a command failed.
struct Failure {
    error: anyhow::Error,
    /// The log says it, in JSON: whoever reads that can't read a sentence.
    is_told: bool,
}

/// What was asked for, and how.
struct CommandLine {
    words: Vec<OsString>,
    arguments: Arguments,
    config: Config,
    said: ArgMatches,
}

fn run(line: CommandLine) -> Result<ExitCode, Failure> {
    let CommandLine { words, arguments, config, said } = line;
    let level = match arguments.command {
        Command::Master(_) | Command::Chunkserver(_) | Command::Mount(_) => Level::Serving,
        Command::Cp(_) | Command::Mv(_) | Command::Sync(_) | Command::Cat(_) | Command::Head(_) | Command::Rm(_) => Level::Troubles,
        _ => Level::Warnings,
    };
    let format = arguments.log_format;
    logging::start(level.with_verbosity(arguments.verbose), format, arguments.log.as_deref())
        .map_err(|error| Failure { error, is_told: false })?;
    let log = arguments.log;
    let done = |()| ExitCode::SUCCESS;
    let result = match arguments.command {
        Command::Master(options) => commands::master::run(options).map(done),
        Command::Chunkserver(options) => commands::chunkserver::run(options).map(done),
        Command::Mount(options) => commands::mount::run(options, log.as_deref(), &words).map(done),
        Command::Umount(options) => commands::umount::run(options).map(done),
        Command::Up(options) => commands::up::run(options).map(done),
        Command::Status(options) => commands::status::run(options).map(done),
        Command::Fsck(options) => commands::fsck::run(options),
        Command::Token(options) => commands::token::run(options).map(done),
        Command::Cp(options) => objects::copy::cp(options),
        Command::Mv(options) => objects::moving::mv(options),
        Command::Sync(options) => objects::copy::sync(options),
        Command::Ls(options) => objects::list::ls(options),
        Command::Stat(options) => objects::list::stat(options),
        Command::Cat(options) => objects::read::cat(options),
        Command::Head(options) => objects::read::head(options),
        Command::Find(options) => objects::search::find(options),
        Command::Tree(options) => objects::list::tree(options),
        Command::Du(options) => objects::usage::du(options),
        Command::Mb(options) => objects::names::mb(options),
        Command::Rb(options) => objects::remove::rb(options),
        Command::Rm(options) => objects::remove::rm(options),
        Command::Touch(options) => objects::names::touch(options),
        Command::Ln(options) => objects::names::ln(options),
        Command::Session(options) => commands::sessions::run(options.action).map(done),
        Command::Pool(options) => commands::pools::run(options.action).map(done),
        Command::Policy(options) => commands::policy::run(options.action).map(done),
        Command::Info(options) => commands::info::run(options).map(done),
        Command::Locate(options) => commands::info::locate(options).map(done),
        Command::Top(options) => commands::top::run(options).map(done),
        Command::Bench(options) => commands::bench::run(options).map(done),
        Command::Config(options) => commands::config::run(&options.action, &config, &said).map(done),
        Command::Quota => Err(anyhow::anyhow!("quotas are not there yet: `df` on a mount shows the space of the whole cluster")),
        Command::Completions(options) => commands::manual::completions(&options).map(done),
        Command::Man(options) => commands::manual::manual(&options).map(done),
    };
    result.map_err(|error| {
        if log.is_some() || format == Format::Json {
            tracing::error!("{}", sentence(&error));
        }
        // Standard error may be the log, too: that of a mount in the background is.
        let is_log = log.as_deref().is_none_or(logging::is_standard_error);
        Failure { error, is_told: is_log && format == Format::Json }
    })
}

/// An error and its causes in one line. Some errors tell their cause themselves: nothing is said twice.
fn sentence(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.contains(&cause) {
            continue;
        }
        if !said.is_empty() {
            said.push_str(": ");
        }
        said.push_str(&cause);
    }
    said
}

#[cfg(test)]
mod tests {
    use super::sentence;
    use anyhow::Context;

    #[test]
    fn a_cause_is_told_once() {
        let broken = || std::io::Error::other("the pipe broke");
        let twice = Err::<(), _>(anyhow::anyhow!(broken())).context("cannot write: the pipe broke").context("no dump").unwrap_err();
        assert_eq!(sentence(&twice), "no dump: cannot write: the pipe broke");
        let once = Err::<(), _>(broken()).context("no dump").unwrap_err();
        assert_eq!(sentence(&once), "no dump: the pipe broke");
    }
}
